{
  description = "Images that are scripts, as streamLayeredImage makes them: packages/<n> runs ./scripts/<n>";

  # Beside it are put ./busybox (a directory) and ./lib, as in examples/forge.
  outputs =
    { self }:
    let
      system = "x86_64-linux";
      busybox = builtins.path {
        path = ./busybox;
        name = "busybox-static";
      };
      lib = builtins.path {
        path = ./lib;
        name = "image-lib";
      };
      scripts = builtins.path {
        path = ./scripts;
        name = "scripts";
      };
      run =
        name: env: script:
        derivation (
          {
            inherit name system lib;
            builder = "${busybox}/busybox";
            args = [
              "sh"
              "-euc"
              "${busybox}/busybox mkdir .bin; ${busybox}/busybox --install -s .bin; PATH=$PWD/.bin; ${script}"
            ];
          }
          // env
        );
      applets = run "applets" { } "mkdir $out; ${busybox}/busybox --install -s $out";
      root = run "hello" { } ''
        mkdir -p $out/bin
        printf '#!${busybox}/busybox sh\necho "Hello, world!"\n' > $out/bin/hello
        chmod 555 $out/bin/hello
        ln -s ${busybox}/busybox $out/bin/sh
      '';
      # what is in the archive, as files
      parts =
        run "parts"
          {
            inherit root;
            arch = "amd64";
            layout = "layered";
            compressor = "none";
            imageName = "hello";
            imageTag = "1.0";
            config = builtins.toJSON { Cmd = [ "/bin/hello" ]; };
            exportReferencesGraph = [ "closure" root ];
          }
          ''
            parts=$out
            out=$PWD/archive.tar
            . $lib/image.sh
            mkdir $parts
            tar -xf archive.tar -C $parts
          '';
      stream =
        name:
        run "stream-${name}" { } ''
          {
            echo '#!${busybox}/busybox sh'
            echo 'PATH=${applets} parts=${parts} lib=${lib} scripts=${scripts}'
            echo '. ${scripts}/archive'
            echo '. ${scripts}/${name}'
          } > $out
          chmod 555 $out
        '';
    in
    {
      packages.${system} = builtins.mapAttrs (
        name: _: run name { } "echo > $out" // { image = stream name; }
      ) (removeAttrs (builtins.readDir ./scripts) [ "archive" ]);
    };
}
