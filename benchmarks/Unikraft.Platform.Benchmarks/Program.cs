using BenchmarkDotNet.Running;
using Unikraft.Platform.Benchmarks;

BenchmarkSwitcher.FromAssembly(typeof(StopReasonBenchmarks).Assembly).Run(args);
