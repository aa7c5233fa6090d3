# Builds $target, an OCI layout, from what image.sh left: config.json, layers, layer.N
set -eu
media=application/vnd.oci.image
mkdir -p "$target/blobs/sha256"
put() { # FILE MEDIA-TYPE -> its descriptor
  printf '{"mediaType": "%s", "digest": "sha256:%s", "size": %s}' "$2" $(sha "$1") $(wc -c < "$1")
  cp "$1" "$target/blobs/sha256/$(sha "$1")"
}

{
  printf '{"schemaVersion": 2, "mediaType": "%s", "config": ' $media.manifest.v1+json
  put config.json $media.config.v1+json
  printf ', "layers": ['
  separator=
  while read -r s f; do
    gzip -c < $f > $f.gz
    printf "$separator"
    put $f.gz $media.layer.v1.tar+gzip
    separator=', '
  done < layers
  printf '], "annotations": {"org.opencontainers.image.title": "%s"}}' "$imageName"
} > manifest
{
  printf '{"schemaVersion": 2, "manifests": ['
  put manifest $media.manifest.v1+json
  printf ']}'
} > "$target/index.json"
printf '{"imageLayoutVersion": "1.0.0"}' > "$target/oci-layout"
