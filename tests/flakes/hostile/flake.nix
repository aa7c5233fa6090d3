{
  description = "<script>window.pwned = 1</script> of a flake whose every word is hostile";

  outputs =
    { self }:
    let
      system = "x86_64-linux";
      busybox = builtins.path {
        path = ./busybox;
        name = "busybox-static";
      };
      control = builtins.fromJSON ''"\u001b[31m\u001b]0;pwned\u0007\u009b1m"'';
      turn = builtins.fromJSON ''"\u202e\u2066\u200f"'';
      markup = "\"'><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>{{ 7 * 7 }}";
      evil = "${markup}${turn}${control}";

      sh =
        name: script:
        derivation {
          inherit name system evil;
          builder = "${busybox}/busybox";
          args = [ "sh" "-euc" "${busybox}/busybox --install -s .; PATH=$PWD; ${script}" ];
        };

      # What prints is what is hostile, and then a line of a megabyte.
      said = ''
        printf '%s\n' "$evil"
        printf '\033[1;31mred\033[0m \033]8;;javascript:alert(1)\033\\link\033]8;;\033\\ \033[2J\n'
        head -c 1000000 /dev/zero | tr '\0' x
        echo
      '';

      image = ''
        ${said}
        mkdir root
        echo "$evil" > root/evil
        tar -C root -cf layer.tar evil
        printf '{"architecture":"amd64","os":"linux","created":"<b>now</b>","author":"<script>window.pwned = 1</script>","config":{"Cmd":["<script>window.pwned = 1</script>","%b"],"Env":["A=<img src=x onerror=window.pwned=1>"],"User":"<i>root</i>","Labels":{"<b>":"</textarea><script>window.pwned = 1</script>"},"ExposedPorts":{"80/<b>":{}}},"history":[{"created_by":"<script>window.pwned = 1</script>"}],"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
          '\\u202e\\u001b[31m' "$(sha256sum layer.tar | cut -c1-64)" > config.json
        printf '[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]' > manifest.json
        tar -cf $out layer.tar config.json manifest.json
      '';

      package =
        name: script:
        sh "package" "echo > $out"
        // {
          inherit name;
          version = "1.0<b>${turn}";
          image = sh "docker-image-${name}.tar" script;
          meta = {
            description = evil;
            homepage = "javascript:window.pwned=1";
            license = { spdxId = markup; fullName = evil; };
          };
        };
    in
    {
      packages.${system} = {
        shouts = package "shouts" image;
        fails = package "fails" "${said} exit 3";
        long = package "long" image // {
          meta.description = builtins.concatStringsSep "" (builtins.genList (_: "x") 1000000);
        };
        ${markup} = package "markup" image;
      };
    };
}
