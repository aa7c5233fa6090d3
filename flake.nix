{
  description = "An OCI registry whose images Nix builds when they are pulled";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # (system → pkgs → attrs) → attrs by system
      forEach = f: nixpkgs.lib.genAttrs systems (system: f system nixpkgs.legacyPackages.${system});
      version = (nixpkgs.lib.importTOML ./pyproject.toml).project.version;
    in
    {
      packages = forEach (
        system: pkgs:
        let
          forge-registry = pkgs.python313Packages.buildPythonApplication {
            pname = "forge-registry";
            inherit version;
            pyproject = true;
            src = self;
            build-system = [ pkgs.python313Packages.hatchling ];
            dependencies =
              with pkgs.python313Packages;
              [
                attrs
                backports-zstd
                cachetools
                click
                cryptography
                google-re2
                isal
                itsdangerous
                jinja2
                klein
                opentelemetry-exporter-otlp-proto-http
                opentelemetry-sdk
                prometheus-client
                python-dotenv
                pyyaml
                rich
                sqlalchemy
                treq
                twisted
                werkzeug
              ]
              ++ twisted.optional-dependencies.tls;
            # nix, setsid and setpriv around it, what it fetches flakes with, and the
            # sandbox of images that are scripts
            makeWrapperArgs = [
              "--prefix"
              "PATH"
              ":"
              (pkgs.lib.makeBinPath [
                pkgs.bubblewrap
                pkgs.git
                pkgs.nix
                pkgs.openssh
                pkgs.util-linux
              ])
            ];
            nativeCheckInputs = [
              pkgs.nix
              pkgs.util-linux
            ]
            ++ (with pkgs.python313Packages; [
              hypothesis
              jsonschema
              pygal
              pytestCheckHook
              pytest-twisted
            ]);
            # The other rings need nix to build, and container clients.
            disabledTestPaths = [
              "tests/live"
              "tests/socket"
            ];
            # Where systemd, and NixOS with systemd.packages, looks for units.
            postInstall = ''
              install -D --mode=444 --target-directory=$out/lib/systemd/system deploy/systemd/*
            '';
            # A cache of plugins that names the build directory.
            postFixup = ''
              find $out -name dropin.cache -delete
            '';
            # The registry can serve itself: packages/forge-registry.
            passthru.image = import ./deploy/image.nix {
              inherit pkgs forge-registry version;
              revision = self.rev or null;
            };
            meta.mainProgram = "forge-registry";
          };
        in
        {
          inherit forge-registry;
          default = forge-registry;
        }
      );

      nixosModules.default = import ./deploy/nixos/module.nix self;

      checks = forEach (system: pkgs: { package = self.packages.${system}.default; });

      devShells = forEach (
        system: pkgs: {
          default = pkgs.mkShell {
            inputsFrom = [ self.packages.${system}.default ];
            packages = [
              pkgs.podman
              pkgs.skopeo
              pkgs.python313Packages.mypy
              pkgs.ruff
            ];
          };
        }
      );
    };
}
