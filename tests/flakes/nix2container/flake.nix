{
  description = "Images as nix2container has them: JSON, and layers made when they are pulled";

  outputs =
    { self }:
    let
      system = "x86_64-linux";
      busybox = builtins.path {
        path = ./busybox;
        name = "busybox-static";
      };
      # runCommand for the poor
      run =
        name: script:
        derivation {
          inherit name system;
          builder = "${busybox}/busybox";
          args = [
            "sh"
            "-euc"
            ''
              ${busybox}/busybox mkdir .bin
              ${busybox}/busybox --install -s .bin
              export PATH=$PWD/.bin
              ${script}
            ''
          ];
        };

      root = run "hello-root" ''
        mkdir -p $out/bin $out/home/ann
        ln -s ${busybox}/busybox $out/bin/sh
        ln -s ${busybox}/busybox $out/bin/stat
        cat > $out/bin/hello <<'EOF'
        #!/bin/sh
        echo "Hello from nix2container!"
        stat -c '%n %a %u:%g' /bin/hello /home/ann
        EOF
        echo "a file of ann's" > $out/home/ann/file
      '';

      # What nix2container's own tool writes, for a tree that needs no more than this.
      tar = ''
        pad() { printf %s "$1"; head -c $(($2 - ''${#1})) /dev/zero; }
        entry() { # NAME TYPE MODE SIZE LINK ID OWNER
          {
            pad "$1" 100
            printf '%07o\0%07o\0%07o\0%011o\0%011o\0        %s' 0$3 $6 $6 $4 1 $2
            pad "$5" 100
            printf 'ustar\00000'
            pad $7 32
            pad $7 32
            printf '0000000\0000000000\0'
            head -c 167 /dev/zero
          } > header
          sum=$(od -An -v -tu1 header | awk '{ for (i = 1; i <= NF; i++) s += $i } END { print s }')
          head -c 148 header
          printf '%06o\0 ' $sum
          tail -c +157 header
        }
        folder() { entry "$1" 5 ''${2:-755} 0 "" ''${3:-0} ''${4:-root}; }
        link() { entry "$1" 2 777 0 "$2" 0 root; }
        file() { # NAME SOURCE MODE ID OWNER
          size=$(wc -c < $2)
          entry $1 0 $3 $size "" ''${4:-0} ''${5:-root}
          cat $2
          head -c $(((512 - size % 512) % 512)) /dev/zero
        }
        {
          folder /
          folder /nix
          folder /nix/store
          folder ${busybox} 555
          file ${busybox}/busybox ${busybox}/busybox 555
          head -c 1024 /dev/zero
        } > closure.tar
        {
          folder /
          folder /bin 555
          file /bin/hello ${root}/bin/hello 755
          link /bin/sh ${busybox}/busybox
          link /bin/stat ${busybox}/busybox
          folder /home 555
          folder /home/ann 700 1000 ann
          file /home/ann/file ${root}/home/ann/file 600 1000 ann
          head -c 1024 /dev/zero
        } > root.tar
      '';
      sum = ''sum() { sha256sum "$1" | cut -c1-64; }'';

      # A layer: its tar is either kept ($1: a file in the store), or made of paths ($2).
      image =
        name:
        {
          layers,
          also ? "",
        }:
        run "image-${name}.json" ''
          ${tar}
          ${sum}
          layer() { # TAR MEMBER
            printf '{"digest":"sha256:%s","size":%s,"diff_ids":"sha256:%s",' \
              $(sum $1) $(wc -c < $1) $(sum $1)
            printf '%s,"mediatype":"application/vnd.oci.image.layer.v1.tar",' "$2"
            printf '"History":{"created_by":"nix2container"}}'
          }
          {
            printf '{"version":1,"image-config":{"Cmd":["/bin/hello"],"User":"1000",'
            printf '"Env":["PATH=/bin"]},"layers":['
            ${layers}
            printf '],"arch":"amd64","created":"1970-01-01T00:00:00Z"}'
          } > $out
          ${also}
        '';
      closureLayer = ''layer closure.tar '"paths":[{"path":"${busybox}"}]' '';
      rootLayer = "layer root.tar '\"paths\":${
        builtins.toJSON [
          {
            path = root;
            options = {
              rewrite = {
                regex = "^${root}";
                repl = "";
              };
              perms = [
                {
                  regex = "/bin/hello$";
                  mode = "0755";
                  uid = 0;
                  gid = 0;
                  uname = "";
                  gname = "";
                }
                {
                  regex = "^${root}/home/ann(/|$)";
                  mode = "0600";
                  uid = 1000;
                  gid = 1000;
                  uname = "ann";
                  gname = "ann";
                }
                {
                  regex = "/home/ann$";
                  mode = "0700";
                  uid = 1000;
                  gid = 1000;
                  uname = "ann";
                  gname = "ann";
                }
              ];
            };
          }
        ]
      }' ";
      # A tar in the store, as a layer that is not reproducible has it.
      stored = run "layers.json" ''
        ${tar}
        ${sum}
        mkdir $out
        mv root.tar $out/$(sum root.tar).tar
      '';
      images = {
        hello = {
          layers = ''
            ${closureLayer}
            printf ,
            ${rootLayer}
          '';
        };
        stored = {
          layers = ''
            ${closureLayer}
            printf ,
            layer root.tar '"layer-path":"'${stored}/$(sum root.tar).tar'"'
          '';
        };
        # a digest that no bytes have
        lies = {
          layers = ''
            ${closureLayer}
            printf ,
            ${rootLayer}
          '';
          also = "sed -i s/sha256:$(sum root.tar)/sha256:$(sum closure.tar | tr 0-9a-f 1-9a-f0)/g $out";
        };
        # a path that was never in the store
        gone = {
          layers = ''layer closure.tar '"paths":[{"path":"/nix/store/${
            builtins.concatStringsSep "" (builtins.genList (_: "0") 32)
          }-gone"}]' '';
        };
      };
    in
    {
      packages.${system} = builtins.mapAttrs (
        name: parts: root // { image = image name parts; }
      ) images;
    };
}
