"""Difix3D for nerfstudio: nerfacto and splatfacto that train on novel views which Difix has fixed."""
