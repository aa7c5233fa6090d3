# The registry as a service of NixOS. The unit is deploy/systemd's, which the package
# brings along; here is only what is another on NixOS, or what somebody sets.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    filterAttrs
    literalExpression
    mapAttrs
    mapAttrsToList
    mkEnableOption
    mkIf
    mkOption
    types
    ;
  cfg = config.services.forge-registry;
  user = "forge-registry";

  # .env.example has every setting, as a test sees to.
  known = lib.concatMap (
    line:
    let
      name = builtins.match "#([A-Z_]+)=.*" line;
    in
    if name == null then [ ] else name
  ) (lib.splitString "\n" (builtins.readFile ../../.env.example));
  isKnown = name: builtins.elem name known;
  unknown = builtins.filter (name: !isKnown name) (builtins.attrNames cfg.settings);

  # setting → string, as in the environment of a unit, where % is special
  write =
    value:
    builtins.replaceStrings [ "%" ] [ "%%" ] (
      if builtins.isList value then lib.concatStringsSep " " value else toString value
    );

  port = toString (cfg.settings.FLASK_PORT or 6443);
  isNumber = builtins.match "[0-9]+" port != null;
  # Of a port alone, systemd makes a socket of IPv6 that takes IPv4 as well.
  family = if builtins.match "[[].*|[0-9]+" (toString cfg.socket) != null then "INET6" else "INET";

  environment =
    mapAttrs (_: write) cfg.settings
    // lib.optionalAttrs (cfg.socket != null) {
      FLASK_PORT = "systemd:domain=${family}:index=0";
    }
    # %d is where systemd puts credentials.
    // mapAttrs (name: _: "%d/${name}") (filterAttrs (name: _: isKnown name) cfg.secretFiles);
in
{
  options.services.forge-registry = {
    enable = mkEnableOption "an OCI registry whose images Nix builds when they are pulled";

    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = literalExpression "forge-registry.packages.\${system}.default";
      description = "The package of the registry.";
    };

    settings = mkOption {
      type =
        with types;
        attrsOf (oneOf [
          str
          int
          float
          (listOf str)
        ]);
      default = { };
      example = {
        GITHUB_REPO = "github:owner/repo";
        FORGE_TAGS = [
          "v*"
          "branch:main"
        ];
        FORGE_SWEEP_DAYS = 30;
      };
      description = ''
        Settings, by the names that they have in the environment; the README has them all.
        Lists are written with spaces between their items. All of this can be read by
        everyone on the machine: secrets belong in {option}`secretFiles`.
      '';
    };

    secretFiles = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        FORGE_TOKEN_FILE = "/run/keys/forge-token";
        FORGE_ADMIN_TOKEN_FILE = "/run/keys/admin-token";
      };
      description = ''
        Paths of files with secrets, by the settings that are to name them. systemd reads
        them as root when the service starts and shows them to it alone. What is no
        setting's name is only shown, as
        {file}`/run/credentials/forge-registry.service/<name>`: for {env}`FORGE_FLAKES`.
      '';
    };

    environmentFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Path of a file with more settings, a line each, as systemd reads it.";
    };

    socket = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "127.0.0.1:6443";
      description = ''
        Address that systemd listens on for the registry, so that nobody notices when it
        restarts. {env}`FLASK_HOST` and {env}`FLASK_PORT` do not count then.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the registry's port, if that is a number, in the firewall.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = unknown == [ ];
        message = "services.forge-registry.settings: there is no setting ${lib.concatStringsSep ", " unknown}; there are ${lib.concatStringsSep ", " known}.";
      }
      {
        assertion = lib.any (who: builtins.elem who config.nix.settings.allowed-users) [
          "*"
          user
          "@${user}"
        ];
        message = "services.forge-registry: add \"${user}\" to nix.settings.allowed-users, or nothing can be built.";
      }
      {
        assertion = cfg.openFirewall -> (isNumber && cfg.socket == null);
        message = "services.forge-registry.openFirewall: the port is not known; set networking.firewall.allowedTCPPorts.";
      }
    ];

    users.users.${user} = {
      isSystemUser = true;
      group = user;
      home = "/var/lib/${user}";
    };
    users.groups.${user} = { };

    systemd.packages = [ cfg.package ];

    systemd.services.forge-registry = {
      wantedBy = [ "multi-user.target" ];
      inherit environment;
      # An empty item takes back what the unit says itself.
      serviceConfig = {
        ExecStart = [
          ""
          "${cfg.package}/bin/forge-registry"
        ];
        # systemd is new enough to wait until the settings have been read again.
        Type = "notify-reload";
        ExecReload = [ "" ];
        EnvironmentFile = [ "" ] ++ lib.optional (cfg.environmentFile != null) cfg.environmentFile;
        LoadCredential = mapAttrsToList (name: path: "${name}:${path}") cfg.secretFiles;
      };
    };

    systemd.sockets.forge-registry = mkIf (cfg.socket != null) {
      wantedBy = [ "sockets.target" ];
      listenStreams = [
        ""
        cfg.socket
      ];
    };

    networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall [ (lib.toInt port) ];
  };
}
