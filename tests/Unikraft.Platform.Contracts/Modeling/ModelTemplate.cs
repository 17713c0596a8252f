namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A template.</summary>
/// <param name="state">What a clone of it is like.</param>
public sealed class ModelTemplate(ModelInstance state) : ModelStored(state);
