using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>Snapshots of machines that run, and machines that continue from them.</summary>
public sealed class CaptureTests : KvmTest
{
    private const int IdentityOffset = 0xF_0000 + 64;
    private const int IdentityLength = 32;

    [ContractFact]
    public async Task A_restored_machine_continues_where_its_source_was()
    {
        await using TestMachine source = await BootAsync("counter", "--period-ms", "0");
        CounterLine first = await source.TickAsync();
        await source.TickAsync();
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        await using TestMachine clone = await RestoreAsync(snapshot);

        CounterLine inClone = await clone.TickAsync();
        CounterLine inSource = await source.TickAsync();

        Assert.Equal((first.Nonce, 3), (inClone.Nonce, inClone.Tick));
        Assert.Equal((first.Nonce, 3), (inSource.Nonce, inSource.Tick));
        Assert.Equal(first.Generation, inSource.Generation);
        Assert.NotEqual(first.Generation, inClone.Generation);
        Assert.True(clone.Machine.HasReachedMain);
        Assert.Equal(0, clone.Monitor.TimesMainReached);
        Assert.Equal(1, snapshot.Depth);
        Assert.InRange(snapshot.StoredBytes, 4096, 32 << 20);
        Assert.InRange(snapshot.Pause.Ticks, 0, TimeSpan.FromSeconds(30).Ticks);
    }

    [ContractFact]
    public async Task Marks_leak_in_no_direction_over_many_rounds()
    {
        await using TestMachine source = await BootAsync("counter", 1, 37, "--period-ms", "0", "--random", "--pages", "20");
        HashSet<string> generations = [];
        string nonce = (await source.TickAsync()).Nonce;
        int tick = 1;
        for (int round = 0; round < Repetitions.Of(1_000); round++)
        {
            await source.SendAsync($"mark before-{round}");
            Assert.Equal($"before-{round}", await source.ShowAsync());
            using IMachineSnapshot snapshot = await source.CaptureAsync();
            await source.SendAsync($"mark source-{round}");
            await using TestMachine one = await RestoreAsync(snapshot);
            await one.SendAsync($"mark one-{round}");
            Assert.Equal($"source-{round}", await source.ShowAsync());
            await using TestMachine two = await RestoreAsync(snapshot);

            Assert.Equal($"before-{round}", await two.ShowAsync());
            Assert.Equal($"one-{round}", await one.ShowAsync());
            Assert.Equal($"source-{round}", await source.ShowAsync());
            tick++;
            CounterLine[] lines =
            [
                await TickAloneAsync(source, one, two),
                await TickAloneAsync(one, source, two),
                await TickAloneAsync(two, source, one),
            ];
            Assert.All(lines, line => Assert.Equal((nonce, tick), (line.Nonce, line.Tick)));
            Assert.True(generations.Add(lines[1].Generation) && generations.Add(lines[2].Generation));

            // While one of them writes to its pages, the others sleep: their whole memory is what it was.
            async Task<CounterLine> TickAloneAsync(TestMachine machine, params TestMachine[] others)
            {
                byte[][] memories = round % 20 == 0 ? [.. others.Select(other => other.Memory.Read(0, (int)other.Memory.Size).ToArray())] : [];
                CounterLine line = await machine.TickAsync();
                foreach ((byte[] memory, TestMachine other) in memories.Zip(others))
                {
                    int same = other.Memory.Read(0, memory.Length).CommonPrefixLength(memory);
                    Assert.True(same == memory.Length, $"round {round}: the byte at 0x{same:x} has changed");
                }

                return line;
            }
        }
    }

    [ContractTheory]
    [InlineData(1, 5, 60)]
    [InlineData(1, 37, 60)]
    [InlineData(3, 37, 60)]
    public async Task Restored_memory_is_that_of_the_source_byte_for_byte(int vcpus, int memoryMb, int rounds)
    {
        string[] args = ["--busy", "--random", "--smp", "--period-ms", "0", "--rate", "60000", "--arena-mb", memoryMb < 10 ? "2" : "20", "--quiet"];
        await using TestMachine source = await BootAsync("counter", vcpus, memoryMb, args);
        for (int round = 1; round <= Repetitions.Of(rounds, least: 10); round++)
        {
            if (round % 7 == 0)
            {
                // A snapshot nobody wants must not make the next one miss anything.
                using CancellationTokenSource source2 = new();
                Task<IMachineSnapshot> unwanted = source.CaptureAsync(source2.Token);
                await source2.CancelAsync();
                if (await Record.ExceptionAsync(async () => (await unwanted).Dispose()) is { } error)
                {
                    Assert.IsAssignableFrom<OperationCanceledException>(error);
                }
            }

            await source.Machine.PauseAsync().AsTask().Guarded();
            using IMachineSnapshot snapshot = await source.CaptureAsync();
            await using TestMachine clone = await RestoreWithoutStartAsync(snapshot);
            AssertSameMemory(source.Memory, clone.Memory, $"round {round}");
            source.Machine.Resume();
            if (round % 10 == 0)
            {
                // The clone runs on, and what it becomes is captured as faithfully.
                await clone.Machine.StartAsync();
                await clone.TickAsync();
                await clone.Machine.PauseAsync().AsTask().Guarded();
                using IMachineSnapshot second = await clone.CaptureAsync();
                await using TestMachine grandchild = await RestoreWithoutStartAsync(second);
                AssertSameMemory(clone.Memory, grandchild.Memory, $"grandchild of round {round}");
            }
        }
    }

    [ContractFact]
    public async Task Branches_of_branches_of_a_loaded_checkpoint_remember_everything_to_depth_64()
    {
        const int Depth = 64;
        using TestDirectory folder = new();
        await using ISnapshotDirectory files = await Hypervisor.GetFeature<ISnapshotFiles>()!.OpenDirectoryAsync(folder.Path);
        TestMachine current = await BootAsync("counter", 1, 37, "--period-ms", "0", "--random", "--pages", "30");
        string nonce = (await current.TickAsync()).Nonce;
        Guid id = Guid.NewGuid();
        using (IMachineSnapshot snapshot = await current.CaptureAsync())
        {
            await files.SaveAsync(id, snapshot);
        }

        await current.DisposeAsync();
        using (IMachineSnapshot opened = await files.OpenAsync(id))
        {
            current = await RestoreAsync(opened);
        }

        for (int depth = 2; depth <= Depth; depth++)
        {
            await current.SendAsync($"mark depth-{depth}");
            Assert.Equal($"depth-{depth}", await current.ShowAsync());
            IMachineSnapshot snapshot = await current.CaptureAsync();
            Assert.Equal(depth, snapshot.Depth);
            TestMachine next = await RestoreAsync(snapshot);

            // Nothing of the ancestors is needed but what the snapshots hold.
            await current.DisposeAsync();
            snapshot.Dispose();
            current = next;
            Assert.Equal($"depth-{depth}", await current.ShowAsync());
            CounterLine line = await current.TickAsync();
            Assert.Equal((nonce, depth), (line.Nonce, line.Tick));
        }

        await current.DisposeAsync();
    }

    /// <summary>What a branch has to copy does not grow with the branches before it: what lies scattered is brought together meanwhile.</summary>
    [ContractFact]
    public async Task The_twentieth_branch_in_a_row_copies_no_more_than_the_ones_before_it()
    {
        const int Branches = 20;
        const int Pages = 40;
        const int FewestScattered = 256;
        await using TestMachine source = await BootAsync("counter", 1, 16, "--period-ms", "0", "--random", "--arena-mb", "8", "--pages", $"{Pages}", "--touch");
        string nonce = (await source.TickAsync()).Nonce;
        List<TestMachine> alive = [];
        List<int> copied = [];
        for (int i = 2; i < Branches + 2; i++)
        {
            await source.TickAsync();
            using KvmSnapshot snapshot = (KvmSnapshot)await source.CaptureAsync();
            using (PageMap map = snapshot.ShareMemory())
            {
                copied.Add(map.Plan.CopiedPages);
            }

            alive.Add(await RestoreAsync(snapshot));
            Assert.Equal((nonce, i + 1), ((await alive[^1].TickAsync()) is var tick ? (tick.Nonce, tick.Tick) : default));
            await ((KvmMachine)source.Machine).Background.Guarded();
        }

        // What is folded is twice as much at most as what folding begins at; 800 pages would be copied without.
        Assert.All(copied, static pages => Assert.InRange(pages, 0, 2 * FewestScattered));
        Assert.Contains(copied.Zip(copied.Skip(1)), static pair => pair.Second < pair.First);
        foreach (TestMachine branch in alive)
        {
            await branch.DisposeAsync();
        }
    }

    [ContractFact]
    public async Task A_snapshot_outlives_its_source_and_a_machine_its_snapshot()
    {
        TestMachine source = await BootAsync("counter", "--period-ms", "0");
        CounterLine line = await source.TickAsync();
        IMachineSnapshot snapshot = await source.CaptureAsync();
        await source.DisposeAsync();
        for (int i = 0; i < 5; i++)
        {
            await using TestMachine clone = await RestoreAsync(snapshot);
            Assert.Equal((line.Nonce, 2), ((await clone.TickAsync()) is var next ? (next.Nonce, next.Tick) : default));
        }

        await using TestMachine last = await RestoreWithoutStartAsync(snapshot);
        snapshot.Dispose();
        snapshot.Dispose();
        await last.Machine.StartAsync();
        Assert.Equal(2, (await last.TickAsync()).Tick);
        for (int i = 0; i < 3; i++)
        {
            await Assert.ThrowsAsync<ObjectDisposedException>(() => RestoreAsync(snapshot));
        }

        // A machine captures on top of a snapshot that nobody holds any more.
        using IMachineSnapshot second = await last.CaptureAsync();
        await using TestMachine grandchild = await RestoreAsync(second);
        Assert.Equal((line.Nonce, 3), ((await grandchild.TickAsync()) is var tick ? (tick.Nonce, tick.Tick) : default));
        Assert.Equal(2, second.Depth);
    }

    [ContractFact]
    public async Task A_foreign_snapshot_is_refused() =>
        await Assert.ThrowsAsync<ArgumentException>(() => RestoreAsync(new ForeignSnapshot()));

    [ContractFact]
    public async Task A_machine_that_was_not_started_is_not_captured()
    {
        await using TestMachine machine = await CreateAsync("counter", 1, 16, "--period-ms", "0");
        await Assert.ThrowsAsync<InvalidOperationException>(() => machine.CaptureAsync());
        await machine.Machine.StartAsync();
        (await machine.CaptureAsync()).Dispose();
    }

    [ContractFact]
    public async Task Of_two_captures_at_once_one_is_refused_or_both_succeed_in_turn()
    {
        await using TestMachine machine = await BootAsync("counter", 1, 128, "--busy", "--touch", "--arena-mb", "64", "--rate", "50000", "--period-ms", "0");
        int refused = 0;
        int taken = 0;
        for (int round = 0; round < 50 || refused == 0; round++)
        {
            Task<IMachineSnapshot>[] captures = [machine.CaptureAsync(), machine.CaptureAsync()];
            foreach (Task<IMachineSnapshot> capture in captures)
            {
                try
                {
                    (await capture).Dispose();
                    taken++;
                }
                catch (InvalidOperationException error)
                {
                    Assert.Equal("Another snapshot of the machine is being taken.", error.Message);
                    refused++;
                }
            }
        }

        Assert.InRange(taken, 50, int.MaxValue);
    }

    [ContractFact]
    public async Task A_capture_can_be_cancelled_at_every_point()
    {
        await using TestMachine machine = await BootAsync("counter", 1, 37, "--random", "--pages", "200", "--period-ms", "0");
        int cancelled = 0;
        for (int round = 0; round < 100; round++)
        {
            CounterLine before = await machine.TickAsync();
            using CancellationTokenSource source = new();
            Task<IMachineSnapshot> capture = machine.CaptureAsync(source.Token);

            // A different delay each round, counted in work and not in time.
            for (int spin = 0; spin < round; spin++)
            {
                machine.Memory.Read(0, 4096).Count((byte)1);
                await Task.Yield();
            }

            await source.CancelAsync();
            try
            {
                (await capture).Dispose();
            }
            catch (OperationCanceledException)
            {
                cancelled++;
            }

            // Nothing that the cancelled one had seen is lost.
            using IMachineSnapshot snapshot = await machine.CaptureAsync();
            await using TestMachine clone = await RestoreAsync(snapshot);
            CounterLine after = await clone.TickAsync();
            Assert.Equal((before.Nonce, before.Tick + 1), (after.Nonce, after.Tick));
        }

        Assert.NotEqual(0, cancelled);
    }

    [ContractFact]
    public async Task The_clocks_of_a_clone_are_right()
    {
        TimeSpan tolerance = TimeSpan.FromSeconds(1);
        await using TestMachine source = await BootAsync("counter", "--period-ms", "0");
        TimeSpan last = (await source.ReadClocksAsync()).Monotonic;
        for (int generation = 0; generation < 20; generation++)
        {
            using IMachineSnapshot snapshot = await source.CaptureAsync();
            await using TestMachine clone = await RestoreAsync(snapshot);
            await using TestMachine sibling = await RestoreAsync(snapshot);
            foreach (TestMachine machine in new[] { clone, sibling, source })
            {
                DateTimeOffset before = TimeProvider.System.GetUtcNow();
                (TimeSpan monotonic, DateTimeOffset wall) = await machine.ReadClocksAsync();
                Assert.InRange(wall, before - tolerance, TimeProvider.System.GetUtcNow() + tolerance);
                Assert.True(monotonic >= last, $"The monotonic clock went back from {last} to {monotonic}.");
            }

            last = (await source.ReadClocksAsync()).Monotonic;
        }
    }

    [ContractFact]
    public async Task A_stop_request_is_not_inherited()
    {
        await using TestMachine source = await BootAsync("crash", "ignore-stop");
        await source.Monitor.ReadLineAsync("crashing");
        source.Machine.RequestStop();
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        await using TestMachine clone = await RestoreAsync(snapshot);
        Assert.Equal(1u, source.Memory.Read<uint>(0xF_0000 + 96));
        Assert.Equal(0u, clone.Memory.Read<uint>(0xF_0000 + 96));
    }

    [ContractFact]
    public async Task A_kill_is_not_inherited()
    {
        for (int round = 0; round < 30; round++)
        {
            await using TestMachine source = await BootAsync("crash", "loop");
            Task<IMachineSnapshot> capture = source.CaptureAsync();
            source.Machine.KillApp();
            try
            {
                using IMachineSnapshot snapshot = await capture;
                await using TestMachine clone = await RestoreAsync(snapshot);
                clone.Machine.KillApp();
                Assert.Equal(110, Assert.IsType<MachineExit.Crashed>(await clone.Exited).StopCode.Errno);
            }
            catch (MachineExitedException error)
            {
                Assert.Equal(110, Assert.IsType<MachineExit.Crashed>(error.Exit).StopCode.Errno);
            }
            catch (HypervisorException)
            {
                // The kill came first.
                Assert.Equal(110, Assert.IsType<MachineExit.Crashed>(await source.Exited).StopCode.Errno);
            }
        }
    }

    [ContractFact]
    public async Task No_snapshot_is_taken_of_a_machine_whose_app_is_being_killed()
    {
        await using TestMachine source = await BootAsync("crash", "loop");
        await source.Machine.PauseAsync().AsTask().Guarded();
        source.Machine.KillApp();
        await Assert.ThrowsAsync<HypervisorException>(() => source.CaptureAsync());
        source.Machine.Resume();
        Assert.Equal(110, Assert.IsType<MachineExit.Crashed>(await source.Exited).StopCode.Errno);
    }

    [ContractFact]
    public async Task Input_that_waits_is_captured_too()
    {
        await using TestMachine source = await BootAsync("counter", "--period-ms", "0");
        await source.TickAsync();
        await source.Machine.PauseAsync().AsTask().Guarded();
        await source.SendAsync("mark waiting");
        await source.SendAsync("show");
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        await using TestMachine clone = await RestoreAsync(snapshot);
        Assert.Equal("mark=waiting", await clone.Monitor.ReadLineAsync());
        Assert.DoesNotContain("waiting", source.Monitor.Text, StringComparison.Ordinal);
        source.Machine.Resume();
        Assert.Equal("mark=waiting", await source.Monitor.ReadLineAsync("mark="));
    }

    [ContractTheory]
    [InlineData(2)]
    [InlineData(8)]
    public async Task Machines_with_several_vcpus_continue_on_all_of_them(int vcpus)
    {
        await using TestMachine source = await BootAsync("counter", vcpus, 64, "--smp", "--busy", "--period-ms", "0");
        for (int round = 0; round < 10; round++)
        {
            CounterLine before = await source.TickAsync();
            using IMachineSnapshot snapshot = await source.CaptureAsync();
            await using TestMachine clone = await RestoreAsync(snapshot);
            CounterLine restored = await clone.TickAsync();
            Assert.Equal(before.Tick + 1, restored.Tick);
            Assert.All(restored.Cpus.Zip(before.Cpus), pair => Assert.True(pair.First >= pair.Second));
            CounterLine later = restored;
            while (later.Cpus.Zip(restored.Cpus).Any(pair => pair.First <= pair.Second))
            {
                later = await clone.TickAsync();
            }
        }
    }

    [ContractFact]
    public async Task No_wake_up_between_vcpus_is_lost_in_a_snapshot()
    {
        // Two vCPUs wake each other in turn for ever. One lost wake-up, and both sleep for ever.
        await using TestMachine source = await CreateAsync(Configuration(GuestImage.FromBytes("ping-pong", PingPongGuest.Image), 2, 4));
        await source.Machine.StartAsync();
        for (int round = 0; round < 150; round++)
        {
            using IMachineSnapshot snapshot = await source.CaptureAsync();
            await using TestMachine clone = await RestoreAsync(snapshot);
            await clone.Monitor.ReadLineAsync("ping");
            await clone.Monitor.ReadLineAsync("ping");
        }
    }

    [ContractFact]
    public async Task Branches_and_full_collections_get_along()
    {
        const int CollectionsOfRound = 4;
        TimeSpan longest = TimeSpan.Zero;
        for (int i = 0; i < 20; i++)
        {
            TimeSpan before = GC.GetTotalPauseDuration();
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Forced, blocking: true, compacting: true);
            TimeSpan pause = GC.GetTotalPauseDuration() - before;
            longest = pause > longest ? pause : longest;
        }

        await using TestMachine source = await BootAsync("counter", 2, 37, "--smp", "--busy", "--rate", "20000", "--random", "--period-ms", "0");
        TimeSpan limit = Patience.For(TimeSpan.FromSeconds(2));
        using CancellationTokenSource done = new();
        using SemaphoreSlim due = new(0);

        // On a thread of its own: with one of the pool's that waits, and processors that guests keep busy, the pool leaves work undone for seconds.
        Task collecting = Task.Factory.StartNew(
            () =>
            {
                List<byte[]> garbage = [];
                while (!done.IsCancellationRequested)
                {
                    // A few for each round: of one after the other without end a round is little but the pauses.
                    due.Wait();
                    garbage.Add(new byte[100_000]);
                    GC.Collect(GC.MaxGeneration, GCCollectionMode.Forced, blocking: true, compacting: true);
                    GC.WaitForPendingFinalizers();
                    if (garbage.Count > 100)
                    {
                        garbage.Clear();
                    }
                }
            },
            CancellationToken.None,
            TaskCreationOptions.LongRunning,
            TaskScheduler.Default);
        try
        {
            string nonce = (await source.TickAsync()).Nonce;
            for (int round = 0; round < Repetitions.Of(1_000); round++)
            {
                long started = TimeProvider.System.GetTimestamp();
                TimeSpan paused = GC.GetTotalPauseDuration();
                int collections = GC.CollectionCount(GC.MaxGeneration);
                if (due.CurrentCount < CollectionsOfRound)
                {
                    due.Release(CollectionsOfRound - due.CurrentCount);
                }

                using IMachineSnapshot snapshot = await source.CaptureAsync();
                await using TestMachine branch = await RestoreAsync(snapshot);

                // What the collector takes on a loaded machine is not the branch's; what it takes longer than without a machine is.
                TimeSpan withoutMachine = (GC.CollectionCount(GC.MaxGeneration) - collections + 1) * longest;
                paused = GC.GetTotalPauseDuration() - paused;
                TimeSpan taken = TimeProvider.System.GetElapsedTime(started) - (paused < withoutMachine ? paused : withoutMachine);
                Assert.True(taken < limit, $"round {round} took {taken} beside {paused} of collections");
                if (round % 10 == 0)
                {
                    Assert.Equal(nonce, (await branch.TickAsync()).Nonce);
                }
            }
        }
        finally
        {
            await done.CancelAsync();
            due.Release();
            await collecting.Guarded();
        }
    }

    [ContractFact]
    public async Task A_clone_has_only_what_it_wrote_to_itself()
    {
        await using TestMachine source = await BootAsync("counter", 1, 64, "--touch", "--arena-mb", "32", "--period-ms", "0");
        await source.TickAsync();
        Assert.InRange(source.Machine.GetFeature<IMachineStatistics>()!.PrivateBytes, 32 << 20, 64 << 20);
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        await using TestMachine clone = await RestoreAsync(snapshot);
        await clone.TickAsync();
        for (long page = 0; page < clone.Memory.Pages; page++)
        {
            clone.Memory.Read<byte>(page << PageSize.Shift);
        }

        Assert.InRange(clone.Machine.GetFeature<IMachineStatistics>()!.PrivateBytes, 4096, 4 << 20);
        Assert.InRange(snapshot.StoredBytes, 32 << 20, 40 << 20);
    }

    [ContractFact]
    public async Task A_machine_is_disposed_of_in_the_middle_of_a_capture()
    {
        for (int round = 0; round < 50; round++)
        {
            TestMachine machine = await BootAsync("counter", 1, 64, "--busy", "--touch", "--arena-mb", "16", "--rate", "100000", "--period-ms", "0");
            Task<IMachineSnapshot> capture = machine.CaptureAsync();
            Task disposal = Task.Run(async () => await machine.DisposeAsync());
            Exception? error = await Record.ExceptionAsync(async () => (await capture).Dispose());
            await disposal.Guarded();
            Assert.True(error is null or MachineExitedException or ObjectDisposedException, $"round {round}: {error}");
        }
    }

    [ContractFact]
    public async Task A_snapshot_is_disposed_of_in_the_middle_of_restoring()
    {
        await using TestMachine source = await BootAsync("counter", 1, 64, "--touch", "--arena-mb", "16", "--period-ms", "0");
        for (int round = 0; round < 50; round++)
        {
            await source.TickAsync();
            IMachineSnapshot snapshot = await source.CaptureAsync();
            Task<TestMachine> restoring = Task.Run(() => RestoreAsync(snapshot));
            Task disposal = Task.Run(snapshot.Dispose);
            try
            {
                await using TestMachine clone = await restoring;
                Assert.Equal(round + 2, (await clone.TickAsync()).Tick);
            }
            catch (ObjectDisposedException)
            {
                Assert.True(restoring.IsFaulted);
            }

            await disposal;
        }
    }

    private static void AssertSameMemory(GuestMemory expected, GuestMemory actual, string what)
    {
        byte[] one = expected.Read(0, (int)expected.Size).ToArray();
        byte[] two = actual.Read(0, (int)actual.Size).ToArray();
        Assert.False(one.AsSpan(IdentityOffset, IdentityLength).SequenceEqual(two.AsSpan(IdentityOffset, IdentityLength)));
        two.AsSpan(IdentityOffset, IdentityLength).CopyTo(one.AsSpan(IdentityOffset));
        int difference = one.AsSpan().CommonPrefixLength(two);
        Assert.True(difference == one.Length, $"{what}: memory differs at 0x{difference:x}");
    }

    private sealed class ForeignSnapshot : IMachineSnapshot
    {
        public long StoredBytes => 0;

        public int Depth => 1;

        public TimeSpan Pause => TimeSpan.Zero;

        public TimeSpan Throttled => TimeSpan.Zero;

        public void Dispose()
        {
        }
    }
}
