"""From what Nix made, of whatever kind, to manifests and where blobs lie."""
