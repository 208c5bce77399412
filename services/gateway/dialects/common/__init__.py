"""What the decoders and encoders of several dialects share."""
