namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A checkpoint.</summary>
/// <param name="state">What an instance loaded from it is like.</param>
public sealed class ModelCheckpoint(ModelInstance state) : ModelStored(state);
