"""What a pass will cost with a tile, predicted from its layout; and the tile that costs least. Torch is not needed."""
