"""The only writer of files. Everything is written beside its place and renamed when complete."""
