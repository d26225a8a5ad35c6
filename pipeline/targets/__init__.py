"""What each device, JetPack and TensorRT can do, from dated and sourced data."""
