{
  description = "One package for each way in which an image cannot be had";

  outputs =
    { self }:
    let
      system = "x86_64-linux";
      busybox = builtins.path {
        path = ./busybox;
        name = "busybox-static";
      };
      sh =
        name: script:
        derivation {
          inherit name system;
          builder = "${busybox}/busybox";
          args = [ "sh" "-euc" "PATH=$PWD; ${busybox}/busybox --install -s .; ${script}" ];
        };
      package = image: sh "package" "echo > $out" // { inherit image; };
    in
    {
      packages.${system} = {
        throws = package (throw "this image was never finished");
        recursion = package (let x = x; in x);
        not-a-derivation = package "/nix/store";
        fails = package (sh "fails.tar.gz" ''
          i=0; while [ $i -lt 30 ]; do echo "compiling $i"; i=$((i+1)); done
          echo "cannot find -lmissing"; exit 3'');
        dependency-fails = package (
          sh "dependent.tar.gz" "cat ${sh "broken-dependency" "echo the dependency is broken; exit 1"} > $out"
        );
        no-output = package (sh "no-output.tar.gz" "true");
        slow = package (sh "slow.tar.gz" "echo started; sleep 1000");
        garbage = package (sh "garbage.tar.gz" "echo this is no image > $out");
        script = package (sh "stream-script" "printf '#!/bin/sh\n' > $out; chmod +x $out");
        directory = package (sh "directory" "mkdir $out");
        escape = sh "escape" "echo > $out" // {
          containers = sh "escape-containers" "mkdir $out; ln -s /etc/passwd $out/passwd.tar";
        };
      };
    };
}
