"""From a name to a path in the Nix store."""
