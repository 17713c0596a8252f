namespace Unikraft.Platform.Volumes;

/// <summary>A fold of which nobody knows whether the file of the image above it names the new image, or still those that it is made of. They hold the same.</summary>
/// <param name="Top">The image above it.</param>
/// <param name="Count">How many images it is made of.</param>
/// <param name="Folded">The new image.</param>
internal sealed record UnsettledFold(string Top, int Count, string Folded);
