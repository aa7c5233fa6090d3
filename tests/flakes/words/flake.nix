{
  description = "Packages that say of themselves what nobody expects";

  outputs =
    { self }:
    let
      system = "x86_64-linux";
      image =
        name:
        derivation {
          inherit name system;
          builder = "/bin/sh";
        };
      package = name: words: { image = image name; } // words;
      # A million characters and more.
      long = text: builtins.foldl' (all: _: all + all) text (builtins.genList (n: n) 20);
      script = "<script>alert(1)</script>";
      many = builtins.genList (n: {
        name = "number-${toString n}";
        value = package "number" {
          version = toString n;
          meta.description = "One of many";
        };
      }) 2000;
    in
    {
      packages.${system} = builtins.listToAttrs many // {
        plain = package "plain" {
          version = "1.0";
          meta = {
            description = "Says hello";
            license.spdxId = "MIT";
            homepage = "https://example.org/";
          };
        };
        script = package "script" {
          version = script;
          meta = {
            description = "${script} ‮desrever\"'&amp;";
            license = script;
            homepage = "javascript:alert(1)";
          };
        };
        long = package "long" {
          version = long "v";
          meta = {
            description = long "ü€";
            license = builtins.genList (_: { spdxId = long "MIT"; }) 1000;
            homepage = "https://${long "x"}.example.org/";
          };
        };
        other-kinds = package "other-kinds" {
          version = x: x;
          meta = {
            description = [ "a list" ];
            license = [
              { shortName = "gpl"; }
              "BSD"
              (throw "no licence")
              5
              { spdxId = 5; }
            ];
            homepage = [
              5
              "https://example.org/second"
              (throw "no page")
            ];
          };
        };
        throws = package "throws" {
          version = throw "no version";
          meta = throw "no meta";
        };
        throws-inside = package "throws-inside" {
          meta = {
            description = throw "no description";
            license = assert false; [ ];
          };
        };
        broken = throw "no package";
      };
    };
}
