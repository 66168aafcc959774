"""From manifests to a page that people read."""
