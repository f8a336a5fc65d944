"""A model and an example input become a `ChannelGraph`."""
