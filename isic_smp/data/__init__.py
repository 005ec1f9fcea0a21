"""Images, masks and splits: from files on disk to pixel arrays. Imports nothing of the project above it."""
