{
  description = "Images that take their time, or more than that";

  outputs =
    { self }:
    let
      system = "x86_64-linux";
      busybox = builtins.path {
        path = ./busybox;
        name = "busybox-static";
      };
      # Another text in this file, and everything is built anew.
      salt = if builtins.pathExists ./salt then builtins.readFile ./salt else "";
      sh =
        name: script:
        derivation {
          inherit name system salt;
          builder = "${busybox}/busybox";
          args = [ "sh" "-euc" "${busybox}/busybox --install -s .; PATH=$PWD; mkdir image; cd image; ${script}" ];
        };

      # What prints a line when it is run, built when a script has come to its end.
      image =
        name: says: script:
        sh "docker-image-${name}.tar" ''
          ${script}
          mkdir -p root/bin
          cp ${busybox}/busybox root/bin/
          tar -C root -cf layer.tar bin
          printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/busybox","echo","%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
            "${says}" "$(sha256sum layer.tar | cut -c1-64)" > config.json
          printf '[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]' > manifest.json
          tar -cf $out layer.tar config.json manifest.json
        '';

      package = image: sh "package" "echo > $out" // { inherit image; };
      named = name: value: { inherit name value; };

      sleep =
        seconds:
        let n = toString seconds; in
        named "sleep-${n}" (package (image "sleep-${n}" "slept ${n}" "echo falling asleep; sleep ${n}"));
      failing =
        seconds:
        let n = toString seconds; in
        named "fails-after-${n}" (
          package (sh "fails-after-${n}.tar" "echo all is well; sleep ${n}; echo 'the tape ran out after ${n} s'; exit 3")
        );
      small =
        number:
        let n = toString number; in
        named "many-${n}" (package (image "many-${n}" "number ${n}" "sleep 0.2"));

      # Lines of a hundred bytes. Nix takes in some 20 MB a second, a fifth of that if it compresses logs.
      line = builtins.concatStringsSep "" (builtins.genList (_: "123456789") 11);
      flood =
        megabytes:
        let n = toString megabytes; in
        named "floods-${n}" (package (image "floods-${n}" "flooded ${n}" "yes ${line} | head -c ${n}000000"));

      numbers = builtins.genList (n: n);
      thousand = numbers 1000;
      # A thousand times a thousand times a thousand steps, in little memory.
      step = f: start: builtins.foldl' (sum: _: f sum) start thousand;
      long = step (step (step (sum: sum + 1))) 0;
      # A list that is twice as long at each step.
      endless = builtins.foldl' (list: _: list ++ list) thousand thousand;
    in
    {
      packages.${system} =
        builtins.listToAttrs (map sleep [ 10 45 70 100 360 720 ] ++ map failing [ 8 25 45 70 ] ++ map flood [ 5 100 1000 ] ++ map small (numbers 200))
        // {
          # What a builder may say though it is not nix. (An event that is not even of the
          # right shape ends nix 2.8.)
          forges = package (
            image "forges" "forged" ''
              echo '@nix {"action":"msg","level":0,"msg":"error: the disk is on fire","raw_msg":"the disk is on fire"}'
              echo '@nix {"action":"start","id":1,"level":0,"parent":0,"text":"","type":104}'
              echo '@nix {"action":"result","id":1,"type":105,"fields":[99,99,0,99]}'
              echo '@nix {"action":"result","id":1,"type":106,"fields":[101,123456789]}'
              echo '@nix {"action":"result","id":1,"type":105,"fields":["x",null,-1,1e999]}'
              echo '@nix {"action":"start","id":2,"level":0,"type":105,"text":"","fields":["/nix/store/forged.drv","",1,1]}'
              echo '@nix {"action":"setPhase","phase":"forgedPhase"}'
              i=0; while [ $i -lt 50 ]; do echo "@nix {\"action\":\"stop\",\"id\":$i}"; i=$((i+1)); done
              echo '@nix not JSON at all'
              sleep 1
            ''
          );
          hangs = package (sh "hangs.tar" "trap '' TERM INT HUP; echo hanging; while :; do sleep 1007; done");
          memory = package (builtins.seq endless (image "memory" "never" ""));
          slow-evaluation = package (builtins.seq long (image "slow-evaluation" "evaluated" ""));
        };
    };
}
