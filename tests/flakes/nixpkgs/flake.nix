# As much of nixpkgs as the registry's own flake names: what would be built says what it was
# told. Nothing of it can be built.
{
  outputs =
    { self }:
    let
      inherit (builtins) attrNames elem filter isString listToAttrs map readFile split;
      lib = rec {
        any = builtins.any;
        concatMap = builtins.concatMap;
        concatStringsSep = builtins.concatStringsSep;
        concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
        filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
        genAttrs = names: f: listToAttrs (map (name: { inherit name; value = f name; }) names);
        importTOML = path: builtins.fromTOML (readFile path);
        literalExpression = text: text;
        makeBinPath = concatMapStringsSep ":" (package: "${package.outPath}/bin");
        mapAttrs = builtins.mapAttrs;
        mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
        mkEnableOption = description: { inherit description; };
        mkIf = condition: content: if condition then content else { };
        mkOption = option: option;
        optional = condition: item: if condition then [ item ] else [ ];
        optionalAttrs = condition: set: if condition then set else { };
        splitString = separator: text: filter isString (split separator text);
        toInt = builtins.fromJSON;
        types = genAttrs [ "bool" "float" "int" "package" "str" ] (name: name) // {
          attrsOf = type: "attrs of ${type}";
          listOf = type: "list of ${type}";
          nullOr = type: "null or ${type}";
          oneOf = concatStringsSep " or ";
        };
      };
      # What a function would build from its arguments.
      made = arguments: {
        type = "derivation";
        name = arguments.pname or arguments.name;
        outPath = "/nix/store/${arguments.pname or arguments.name}";
        inherit arguments;
      } // (arguments.passthru or { });
      packageNames = [
        "bubblewrap" "busybox" "cacert" "coreutils" "git" "nix" "openssh" "podman" "ruff"
        "skopeo" "tini" "util-linux"
      ];
      packagesOf = system: lib.genAttrs packageNames (name: made { inherit name; }) // {
        inherit lib;
        stdenv.hostPlatform.system = system;
        dockerTools.buildLayeredImage = made;
        mkShell = made;
        runCommand = name: env: script: made { inherit name script; };
        python313Packages = pythonPackages;
      };
      # Python packages are many: whatever pyproject.toml asks for is there.
      project = (lib.importTOML ./pyproject.toml).project;
      nameOf = requirement: builtins.replaceStrings [ "." "_" ] [ "-" "-" ] (builtins.head (builtins.match "([A-Za-z0-9._-]+).*" requirement));
      pythonPackages = lib.genAttrs (map nameOf (project.dependencies ++ lib.concatMap (name: project.optional-dependencies.${name}) (attrNames project.optional-dependencies)) ++ [ "hatchling" "pytestCheckHook" "jsonschema" "twisted" ]) (name: made { inherit name; } // { optional-dependencies.tls = [ ]; }) // {
        buildPythonApplication = made;
      };
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] packagesOf;
    };
}
