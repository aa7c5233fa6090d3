# The registry as a container image, with a Nix of its own. It builds into a store below
# /data, so that one volume holds all that is to be kept, and nothing hides the image's own
# /nix/store. Nix needs user namespaces for that; docs/operations.md says how to allow them.
{
  pkgs,
  forge-registry,
  version,
  revision,
}:
let
  user = "1000";
  files = pkgs.runCommand "forge-registry-files" { } ''
    mkdir -p $out/etc/nix
    echo 'forge-registry:x:${user}:${user}::/data:/bin/sh' > $out/etc/passwd
    echo 'forge-registry:x:${user}:' > $out/etc/group
    echo 'hosts: files dns' > $out/etc/nsswitch.conf
    echo 'build-users-group =' > $out/etc/nix/nix.conf
  '';
  # Docker counts in nanoseconds.
  seconds = n: n * 1000000000;
in
pkgs.dockerTools.buildLayeredImage {
  name = "forge-registry";
  tag = version;
  contents = [
    files
    forge-registry
    pkgs.busybox
    pkgs.cacert
    pkgs.git
    pkgs.nix
    pkgs.openssh
  ];
  # A new volume takes over whose the directory is.
  fakeRootCommands = ''
    mkdir -p data tmp
    chown ${user}:${user} data
    chmod 1777 tmp
  '';
  config = {
    # Something has to reap what nix leaves behind.
    Entrypoint = [
      "${pkgs.tini}/bin/tini"
      "--"
      "${forge-registry}/bin/forge-registry"
    ];
    User = "${user}:${user}";
    WorkingDir = "/data";
    Env = [
      "HOME=/data"
      "PATH=/bin"
      "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"
      "FLASK_HOST=0.0.0.0"
      "FORGE_STATE_DIR=/data/state"
      "FORGE_STORE=/data/store"
    ];
    ExposedPorts."6443/tcp" = { };
    Volumes."/data" = { };
    Healthcheck = {
      Test = [
        "CMD"
        "wget"
        "-q"
        "-O"
        "/dev/null"
        "http://127.0.0.1:6443/healthz"
      ];
      Interval = seconds 30;
      Timeout = seconds 5;
      StartPeriod = seconds 30;
      Retries = 3;
    };
    # Source: OCI image specification, "Annotations".
    Labels = {
      "org.opencontainers.image.title" = "forge-registry";
      "org.opencontainers.image.description" = "An OCI registry whose images Nix builds when they are pulled";
      "org.opencontainers.image.version" = version;
      "org.opencontainers.image.licenses" = "MIT";
    }
    // (if revision == null then { } else { "org.opencontainers.image.revision" = revision; });
  };
}
