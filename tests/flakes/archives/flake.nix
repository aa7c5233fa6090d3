{
  description = "What other tools made, as Nix has it: packages/<n> is the file or directory ./archives/<n>";

  outputs =
    { self }:
    let
      system = "x86_64-linux";
      busybox = builtins.path {
        path = ./busybox;
        name = "busybox-static";
      };
      image =
        name:
        let
          archive = builtins.path {
            path = ./archives + "/${name}";
            inherit name;
          };
        in
        derivation {
          inherit system;
          name = "image-${name}";
          builder = "${busybox}/busybox";
          args = [ "sh" "-euc" "${busybox}/busybox cp -r ${archive} $out" ];
        };
    in
    {
      packages.${system} = builtins.mapAttrs (name: _: { image = image name; }) (
        builtins.readDir ./archives
      );
    };
}
