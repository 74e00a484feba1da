"""What differs between photos of one scene besides the view: exposure, white balance, tone."""
