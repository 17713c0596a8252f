using System.IO.MemoryMappedFiles;
using Xunit.Sdk;

namespace Unikraft.Platform.TestKit.Tests;

public sealed class ProcessResourcesTests
{
    [Fact]
    public async Task What_is_closed_is_no_leak() =>
        await ProcessResources.AssertNoGrowthAsync(() =>
        {
            using FileStream file = File.OpenRead("/proc/self/status");
            Thread thread = new(() => file.ReadByte()) { Name = "short-lived" };
            thread.Start();
            thread.Join();
            return Task.CompletedTask;
        });

    [Fact]
    public async Task A_descriptor_left_open_each_round_is_found()
    {
        List<FileStream> leaked = [];
        TrueException error = await Assert.ThrowsAsync<TrueException>(() => ProcessResources.AssertNoGrowthAsync(() =>
        {
            leaked.Add(File.OpenRead("/dev/null"));
            return Task.CompletedTask;
        }));

        Assert.Contains("descriptor /dev/null", error.Message, StringComparison.Ordinal);
        leaked.ForEach(file => file.Dispose());
    }

    [Fact]
    public async Task What_grows_once_and_then_stays_is_no_leak()
    {
        List<FileStream> cache = [];
        await ProcessResources.AssertNoGrowthAsync(() =>
        {
            if (cache.Count < 16)
            {
                cache.Add(File.OpenRead("/dev/zero"));
            }

            return Task.CompletedTask;
        });
        cache.ForEach(file => file.Dispose());
    }

    [Fact]
    public async Task Memory_mapped_in_each_round_is_found_by_its_size()
    {
        List<MemoryMappedFile> leaked = [];
        List<MemoryMappedViewAccessor> views = [];
        const int Size = 1 << 22;
        TrueException error = await Assert.ThrowsAsync<TrueException>(() => ProcessResources.AssertNoGrowthAsync(
            () =>
            {
                leaked.Add(MemoryMappedFile.CreateNew(mapName: null, Size));
                views.Add(leaked[^1].CreateViewAccessor());
                return Task.CompletedTask;
            },
            bytesPerRound: Size));
        views.ForEach(view => view.Dispose());
        leaked.ForEach(file => file.Dispose());

        Assert.Contains("address space", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_thread_left_running_each_round_is_found()
    {
        using ManualResetEventSlim end = new();
        TrueException error = await Assert.ThrowsAsync<TrueException>(() => ProcessResources.AssertNoGrowthAsync(() =>
        {
            using ManualResetEventSlim started = new();
            new Thread(() =>
            {
                started.Set();
                end.Wait();
            })
            { Name = "left-running", IsBackground = true }.Start();
            started.Wait();
            return Task.CompletedTask;
        }));
        end.Set();

        Assert.Contains("thread left-running", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_single_descriptor_is_found_by_comparing_with_before()
    {
        string path = Path.GetTempFileName();
        ProcessResources before = ProcessResources.Capture();
        using (FileStream file = File.OpenRead(path))
        {
            TrueException error = Assert.Throws<TrueException>(() => ProcessResources.AssertNoGrowth(before));
            Assert.Contains(path, error.Message, StringComparison.Ordinal);
        }

        File.Delete(path);
    }

    [Fact]
    public void Counts_are_those_of_this_process()
    {
        ProcessResources resources = ProcessResources.Capture();

        Assert.True(resources.FileDescriptors > 2);
        Assert.True(resources.Mappings > 10);
        Assert.True(resources.Threads > 1);
        Assert.True(resources.MappedBytes > 1 << 20);
    }
}
