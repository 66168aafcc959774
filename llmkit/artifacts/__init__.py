"""What a run leaves on disk: folders, manifests, fingerprints."""
