"""Posed, masked photos of objects, from CO3Dv2 folders, published toy files and COLMAP folders."""
