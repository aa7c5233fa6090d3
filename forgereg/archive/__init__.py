"""From an archive that Nix made to descriptors and bytes."""
