namespace Unikraft.Platform.Benchmarks;

/// <summary>The prebuilt guests of the repository, which lie beside the program.</summary>
internal static class Guests
{
    internal static string PathOf(string name) => Path.Combine(AppContext.BaseDirectory, "guests", $"{name}.elf");
}
