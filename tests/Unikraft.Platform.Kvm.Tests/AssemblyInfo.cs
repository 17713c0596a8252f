using System.Diagnostics.CodeAnalysis;

// Descriptors, mappings and threads are counted for the process as a whole.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
[assembly: SuppressMessage("Performance", "CA1812:Avoid uninstantiated internal classes", Justification = "xunit makes the test classes.")]
