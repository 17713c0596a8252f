using System.Globalization;
using System.Text;
using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Tests;

/// <summary>Random sequences of commands, each checked against a dictionary that says what should be there.</summary>
public sealed class ModelTests
{
    private const int Commands = 120;

    public static TheoryData<int> Seeds => [.. Enumerable.Range(1, 16)];

    [Theory]
    [MemberData(nameof(Seeds))]
    public async Task The_platform_does_what_the_model_does(int seed)
    {
        await using TestPlatform test = new();
        Run run = new(test, new Dice((ulong)seed));
        try
        {
            for (int i = 0; i < Commands; i++)
            {
                await run.StepAsync();
                await run.CheckAsync();
            }

            await run.EndAsync();
        }
        catch (Exception error)
        {
            throw new InvalidOperationException($"Seed {seed} failed after:\n{run.History}", error);
        }
    }

    /// <summary>The memory of a counter guest.</summary>
    private sealed record Memory(string Nonce, int Tick, string Mark);

    /// <summary>What can be patched, and since when the resource is not used.</summary>
    private abstract record ModelResource
    {
        public IReadOnlyList<string> Tags { get; set; } = [];

        public bool IsLocked { get; set; }

        public int? AutokillSeconds { get; set; }

        public int UnusedSeconds { get; set; }

        public virtual bool IsUsed => false;

        public bool HasExpired => !IsLocked && !IsUsed && UnusedSeconds >= AutokillSeconds;
    }

    private sealed record ModelInstance : ModelResource
    {
        public override bool IsUsed => IsRunning;

        public bool IsRunning { get; set; }

        /// <summary>What runs; unknown nonce when it has not ticked yet.</summary>
        public Memory? Live { get; set; }

        /// <summary>What the next start continues from.</summary>
        public Memory? Snapshot { get; set; }

        public int Starts { get; set; }

        public IReadOnlyList<string> History { get; set; } = [];
    }

    private sealed record ModelCheckpoint(Memory? Memory, IReadOnlyList<string> Ancestors) : ModelResource
    {
        public int Loads { get; set; }
    }

    private sealed record ModelTemplate(Memory? Memory, IReadOnlyList<string> History) : ModelResource
    {
        public int Clones { get; set; }
    }

    private sealed class Run(TestPlatform test, Dice dice)
    {
        private readonly Dictionary<string, ModelInstance> _instances = new(StringComparer.Ordinal);
        private readonly Dictionary<string, ModelCheckpoint> _checkpoints = new(StringComparer.Ordinal);
        private readonly Dictionary<string, ModelTemplate> _templates = new(StringComparer.Ordinal);
        private readonly StringBuilder _history = new();
        private readonly IAsyncEnumerable<InstanceTransition> _watch = test.Instances.WatchAllAsync();
        private int _starts;
        private int _lastName;

        public string History => _history.ToString();

        public Task StepAsync() => dice.Next(22) switch
        {
            0 or 1 => CreateAsync(),
            2 => BranchAsync(),
            3 => CheckpointAsync(),
            4 => LoadAsync(),
            5 => StartAsync(),
            6 => StopAsync(force: false),
            7 => StopAsync(force: true),
            8 => MarkAsync(),
            9 => DeleteAsync(),
            10 => DeleteCheckpointAsync(),
            11 => ExitAsync(),
            12 => ConvertAsync(),
            13 or 14 => CloneAsync(),
            15 => DeleteTemplateAsync(),
            16 => ForkAsync(),
            17 or 18 => PatchAsync(),
            19 or 20 => LetTimePassAsync(),
            _ => TickAsync(),
        };

        public async Task CheckAsync()
        {
            IReadOnlyList<Instance> listed = test.Instances.List();
            Assert.Equal(_instances.Keys.Order(StringComparer.Ordinal), listed.Select(instance => instance.Name).Order(StringComparer.Ordinal));
            foreach (Instance instance in listed)
            {
                ModelInstance model = _instances[instance.Name];
                Assert.Equal(model.IsRunning ? InstanceState.Running : InstanceState.Stopped, instance.State);
                Assert.Equal(model.Starts, instance.StartCount);
                Assert.Equal(instance.State == InstanceState.Stopped && model.Starts > 0, instance.StopReason is not null);
                Assert.Equal(model.History, test.Instances.GetHistory(instance.Uuid).Select(entry => entry.Name));
                CheckMetadata(model, instance.Tags, instance.DeleteLock, instance.Autokill);
            }

            Assert.Equal(
                _checkpoints.Keys.Order(StringComparer.Ordinal),
                test.Checkpoints.List().Select(checkpoint => checkpoint.Name).Order(StringComparer.Ordinal));
            foreach ((string name, ModelCheckpoint model) in _checkpoints)
            {
                Checkpoint checkpoint = test.Checkpoints.Get(name);
                Assert.Equal((CheckpointState.Ready, model.Loads), (checkpoint.State, checkpoint.LoadCount));
                CheckMetadata(model, checkpoint.Tags, checkpoint.DeleteLock, checkpoint.Autokill);
                Assert.Equal(model.Ancestors, test.Checkpoints.GetHistory(name).Select(entry => entry.Name));
            }

            Assert.Equal(
                _templates.Keys.Order(StringComparer.Ordinal),
                test.Templates.List().Select(template => template.Name).Order(StringComparer.Ordinal));
            foreach ((string name, ModelTemplate model) in _templates)
            {
                Template template = test.Templates.Get(name);
                Assert.Equal(model.Clones, template.CloneCount);
                CheckMetadata(model, template.Tags, template.DeleteLock, template.Autokill);
            }

            if (dice.Pick(_instances.Where(entry => entry.Value.IsRunning)) is (string running, ModelInstance live))
            {
                await using ConsoleSession console = Attach(running);
                Assert.Equal(live.Live?.Mark ?? "", await console.ShowAsync());
            }
        }

        /// <summary>Ends the platform, and checks what a reader of all transitions has seen since the beginning.</summary>
        public async Task EndAsync()
        {
            await test.Platform.DisposeAsync().Guarded();
            List<InstanceTransition> all = [];
            await foreach (InstanceTransition transition in _watch)
            {
                all.Add(transition);
            }

            Assert.Equal(_starts, all.Count(transition => transition.To == InstanceState.Running));
            foreach (IGrouping<Guid, InstanceTransition> instance in all.GroupBy(transition => transition.Uuid))
            {
                InstanceTransition[] life = [.. instance];
                Assert.Equal(Enumerable.Range(1, life.Length), life.Select(transition => (int)transition.Number));
                Assert.All(life.Zip(life.Skip(1)), pair => Assert.Equal(pair.First.To, pair.Second.From));
                Assert.Equal((null, null), (life[0].From, life[^1].To));
            }
        }

        private static void CheckMetadata(ModelResource model, IReadOnlyList<string> tags, bool deleteLock, AutokillPolicy? autokill)
        {
            Assert.Equal(model.Tags, tags);
            Assert.Equal((model.IsLocked, model.AutokillSeconds), (deleteLock, (int?)autokill?.Time.TotalSeconds));
        }

        private async Task PatchAsync()
        {
            var all = _instances.Select(entry => KeyValuePair.Create("i:" + entry.Key, (ModelResource)entry.Value))
                .Concat(_checkpoints.Select(entry => KeyValuePair.Create("c:" + entry.Key, (ModelResource)entry.Value)))
                .Concat(_templates.Select(entry => KeyValuePair.Create("t:" + entry.Key, (ModelResource)entry.Value)));
            if (dice.Pick(all) is not (string key, ModelResource model))
            {
                return;
            }

            PatchOperation[] operations = [.. Enumerable.Range(0, dice.Next(3) + 1).Select(_ => NewOperation())];
            bool isBad = dice.Next(5) == 0;
            Say($"patch {key}: {string.Join(", ", operations.Select(operation => operation.ToString()))}{(isBad ? ", and a bad tag" : "")}");
            if (isBad)
            {
                await Assert.ThrowsAsync<InvalidRequestException>(() => SendAsync([.. operations, new PatchOperation.AddTags("a b")]));
                return;
            }

            await SendAsync(operations);
            foreach (PatchOperation operation in operations)
            {
                Apply(model, operation);
            }

            // A lock or policy that holds nothing any more.
            Advance(0);

            Task SendAsync(PatchOperation[] sent) => key[0] switch
            {
                'i' => test.Instances.PatchAsync(key[2..], sent).Guarded(),
                'c' => test.Checkpoints.PatchAsync(key[2..], sent).Guarded(),
                _ => test.Templates.PatchAsync(key[2..], sent).Guarded(),
            };
        }

        private PatchOperation NewOperation()
        {
            string[] tags = [.. Enumerable.Range(0, dice.Next(3)).Select(_ => $"tag-{dice.Next(4)}")];
            int kind = dice.Next(6);
            return kind switch
            {
                0 => new PatchOperation.AddTags(tags),
                1 => new PatchOperation.DelTags(tags),
                2 => new PatchOperation.SetTags(tags),
                3 => new PatchOperation.SetDeleteLock(dice.Next(3) == 0),
                _ => new PatchOperation.SetAutokill(dice.Next(4) == 0 ? null : new AutokillPolicy(TimeSpan.FromSeconds(20 + dice.Next(100)))),
            };
        }

        private static void Apply(ModelResource model, PatchOperation operation)
        {
            switch (operation)
            {
                case PatchOperation.AddTags add:
                    model.Tags = [.. model.Tags.Concat(add.Tags).Distinct(StringComparer.Ordinal)];
                    break;
                case PatchOperation.DelTags del:
                    model.Tags = [.. model.Tags.Where(tag => !del.Tags.Contains(tag, StringComparer.Ordinal))];
                    break;
                case PatchOperation.SetTags set:
                    model.Tags = [.. set.Tags.Distinct(StringComparer.Ordinal)];
                    break;
                case PatchOperation.SetDeleteLock set:
                    model.IsLocked = set.Enabled;
                    break;
                case PatchOperation.SetAutokill set:
                    model.AutokillSeconds = (int?)set.Policy?.Time.TotalSeconds;
                    break;
            }
        }

        private Task LetTimePassAsync()
        {
            int seconds = dice.Next(40) + 1;
            Say($"wait {seconds} s");
            Advance(seconds);
            return Task.CompletedTask;
        }

        private void Advance(int seconds)
        {
            test.Time.Advance(TimeSpan.FromSeconds(seconds));
            foreach (ModelResource model in _instances.Values.Concat<ModelResource>(_checkpoints.Values).Concat(_templates.Values))
            {
                model.UnusedSeconds = model.IsUsed ? 0 : model.UnusedSeconds + seconds;
            }

            Expire(_instances);
            Expire(_checkpoints);
            Expire(_templates);
        }

        private static void Expire<T>(Dictionary<string, T> resources)
            where T : ModelResource
        {
            foreach (string name in resources.Where(entry => entry.Value.HasExpired).Select(entry => entry.Key).ToArray())
            {
                resources.Remove(name);
            }
        }

        /// <summary>Deletes a resource, which its lock refuses.</summary>
        private static async Task<bool> DeleteAsync(ModelResource model, Func<Task> delete)
        {
            if (!model.IsLocked)
            {
                await delete();
                return true;
            }

            await Assert.ThrowsAsync<DeletionProtectedException>(delete);
            return false;
        }

        private async Task CreateAsync()
        {
            string name = NewName();
            bool start = dice.Next(2) == 0;
            Say($"create {name} {(start ? "started" : "stopped")}");
            await test.Instances
                .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { Name = name, Autostart = start, WaitTimeout = Wait(start) })
                .Guarded();
            _instances[name] = Started(new ModelInstance(), start);
        }

        private async Task BranchAsync()
        {
            if (dice.Pick(_instances) is not (string source, ModelInstance model))
            {
                return;
            }

            string name = NewName();
            bool start = dice.Next(2) == 0;
            Say($"branch {source} to {name} {(start ? "started" : "stopped")}");
            await test.Instances
                .CreateAsync(new CreateInstanceRequest { Name = name, BranchFrom = source, Autostart = start, WaitTimeout = Wait(start) })
                .Guarded();
            _instances[name] = Started(new ModelInstance { Snapshot = StateOf(model), History = model.History }, start);
        }

        private async Task CheckpointAsync()
        {
            if (dice.Pick(_instances) is not (string source, ModelInstance model))
            {
                return;
            }

            string name = NewName();
            Say($"checkpoint {source} as {name}");
            await test.Checkpoints
                .CreateAsync(new CreateCheckpointRequest { Name = name, From = source, WaitTimeout = Timeout.InfiniteTimeSpan })
                .Guarded();
            _checkpoints[name] = new ModelCheckpoint(StateOf(model), model.History);
            model.History = [name, .. model.History];
        }

        private async Task LoadAsync()
        {
            if (dice.Pick(_checkpoints) is not (string checkpoint, ModelCheckpoint model))
            {
                return;
            }

            string name = NewName();
            bool start = dice.Next(2) == 0;
            Say($"load {checkpoint} as {name} {(start ? "started" : "stopped")}");
            await test.Instances
                .CreateAsync(new CreateInstanceRequest { Name = name, Checkpoint = checkpoint, Autostart = start, WaitTimeout = Wait(start) })
                .Guarded();
            model.Loads++;
            model.UnusedSeconds = 0;
            _instances[name] = Started(new ModelInstance { Snapshot = model.Memory, History = [checkpoint, .. model.Ancestors] }, start);
        }

        private async Task ConvertAsync()
        {
            if (dice.Pick(_instances) is not (string name, ModelInstance model))
            {
                return;
            }

            bool fromInside = model.IsRunning && dice.Next(2) == 0;
            Say($"convert {name}{(fromInside ? " from inside" : "")}");
            Guid uuid = test.Instances.Get(name).Uuid;
            if (fromInside)
            {
                Task<Instance> gone = test.Instances.WaitAsync(name, InstanceState.Standby);
                await using ConsoleSession console = Attach(name);
                await console.WriteLineAsync("template");
                await Assert.ThrowsAsync<ResourceNotFoundException>(() => gone.Guarded());
            }
            else
            {
                await test.Templates.ConvertAsync(name).Guarded();
            }

            Assert.Equal(uuid, test.Templates.Get(name).Uuid);
            _templates[name] = new ModelTemplate(StateOf(model), model.History)
            {
                Tags = model.Tags,
                IsLocked = model.IsLocked,
                AutokillSeconds = model.AutokillSeconds,
            };
            _instances.Remove(name);
        }

        private async Task CloneAsync()
        {
            if (dice.Pick(_templates) is not (string template, ModelTemplate model))
            {
                return;
            }

            string name = NewName();
            bool start = dice.Next(2) == 0;
            Say($"clone {template} as {name} {(start ? "started" : "stopped")}");
            await test.Instances
                .CreateAsync(new CreateInstanceRequest { Name = name, Template = template, Autostart = start, WaitTimeout = Wait(start) })
                .Guarded();
            model.Clones++;
            model.UnusedSeconds = 0;
            _instances[name] = Started(
                new ModelInstance { Snapshot = model.Memory, History = model.History, AutokillSeconds = model.AutokillSeconds },
                start);
        }

        private async Task DeleteTemplateAsync()
        {
            if (dice.Pick(_templates) is (string name, ModelTemplate model))
            {
                Say($"delete template {name}");
                if (await DeleteAsync(model, () => test.Templates.DeleteAsync(name).Guarded()))
                {
                    _templates.Remove(name);
                }
            }
        }

        private async Task ForkAsync()
        {
            if (dice.Pick(_instances.Where(entry => entry.Value.IsRunning)) is not (string source, ModelInstance model))
            {
                return;
            }

            await using ConsoleSession console = Attach(source);
            await console.WriteLineAsync("fork");
            string line = await console.ReadLineAsync("fork parent child=");
            string name = test.Instances.Get(Guid.Parse(line["fork parent child=".Length..], CultureInfo.InvariantCulture)).Name;
            Say($"fork {source} to {name}");
            _instances[name] = Started(new ModelInstance { Snapshot = StateOf(model), History = model.History }, start: true);
        }

        private async Task StartAsync()
        {
            if (dice.Pick(_instances) is not (string name, ModelInstance model))
            {
                return;
            }

            Say($"start {name}");
            if (model.IsRunning)
            {
                await Assert.ThrowsAsync<WrongStateException>(() => test.Instances.StartAsync(name).Guarded());
                return;
            }

            await test.Instances.StartAsync(name).Guarded();
            await test.WaitAsync(name, InstanceState.Running);
            Started(model, start: true);
        }

        private async Task StopAsync(bool force)
        {
            if (dice.Pick(_instances) is not (string name, ModelInstance model))
            {
                return;
            }

            Say($"{(force ? "kill" : "stop")} {name}");
            Instance stopped = await test.Instances.StopAsync(name, new StopRequest { Force = force }).Guarded();
            if (model.IsRunning)
            {
                Assert.Equal(force ? "FUP--" : "-UPAK", stopped.StopReason!.Value.ToMask());
            }

            (model.IsRunning, model.Live) = (false, null);
        }

        private async Task ExitAsync()
        {
            if (dice.Pick(_instances.Where(entry => entry.Value.IsRunning)) is not (string name, ModelInstance model))
            {
                return;
            }

            int code = dice.Next(100);
            Say($"exit {code} in {name}");
            await using ConsoleSession console = Attach(name);
            await console.WriteLineAsync(string.Create(CultureInfo.InvariantCulture, $"exit {code}"));
            Instance stopped = await test.WaitAsync(name, InstanceState.Stopped);
            Assert.Equal(("---AK", code), (stopped.StopReason!.Value.ToMask(), stopped.ExitCode));
            (model.IsRunning, model.Live) = (false, null);
        }

        private async Task DeleteAsync()
        {
            if (dice.Pick(_instances) is (string name, ModelInstance model))
            {
                Say($"delete {name}");
                if (await DeleteAsync(model, () => test.Instances.DeleteAsync(name).Guarded()))
                {
                    _instances.Remove(name);
                }
            }
        }

        private async Task DeleteCheckpointAsync()
        {
            if (dice.Pick(_checkpoints) is (string name, ModelCheckpoint model))
            {
                Say($"delete checkpoint {name}");
                if (await DeleteAsync(model, () => test.Checkpoints.DeleteAsync(name).Guarded()))
                {
                    _checkpoints.Remove(name);
                }
            }
        }

        private async Task MarkAsync()
        {
            if (dice.Pick(_instances.Where(entry => entry.Value.IsRunning)) is not (string name, ModelInstance model))
            {
                return;
            }

            string mark = string.Create(CultureInfo.InvariantCulture, $"mark-{dice.Next(1000)}");
            Say($"{mark} in {name}");
            await using ConsoleSession console = Attach(name);
            await console.WriteLineAsync($"mark {mark}");
            Assert.Equal(mark, await console.ShowAsync());
            model.Live = (model.Live ?? new Memory("", 0, "")) with { Mark = mark };
        }

        private async Task TickAsync()
        {
            if (dice.Pick(_instances.Where(entry => entry.Value.IsRunning)) is not (string name, ModelInstance model))
            {
                return;
            }

            Say($"tick {name}");
            await using ConsoleSession console = Attach(name);
            CounterTick tick = await console.TickAsync();
            Memory before = model.Live ?? new Memory("", 0, "");
            Assert.Equal(before.Tick + 1, tick.Tick);
            if (before.Nonce.Length > 0)
            {
                Assert.Equal(before.Nonce, tick.Nonce);
            }

            model.Live = before with { Nonce = tick.Nonce, Tick = tick.Tick };
        }

        private ConsoleSession Attach(string name) => new(test.Instances.AttachConsole(name));

        private ModelInstance Started(ModelInstance model, bool start)
        {
            if (start)
            {
                model.IsRunning = true;
                model.UnusedSeconds = 0;
                model.Starts++;
                _starts++;
                (model.Live, model.Snapshot) = (model.Snapshot, null);
            }

            return model;
        }

        private static Memory? StateOf(ModelInstance model) => model.IsRunning ? model.Live ?? new Memory("", 0, "") : model.Snapshot;

        private static TimeSpan? Wait(bool start) => start ? Timeout.InfiniteTimeSpan : null;

        private string NewName() => string.Create(CultureInfo.InvariantCulture, $"n{++_lastName}");

        private void Say(string command) => _history.Append("  ").Append(command).Append('\n');
    }

    /// <summary>A small generator, the same on every runtime (SplitMix64).</summary>
    private sealed class Dice(ulong seed)
    {
        private ulong _state = seed;

        public int Next(int sides)
        {
            ulong z = _state += 0x9E3779B97F4A7C15;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            return (int)((z ^ (z >> 31)) % (ulong)sides);
        }

        public (string Name, T Value)? Pick<T>(IEnumerable<KeyValuePair<string, T>> from)
        {
            KeyValuePair<string, T>[] choices = [.. from.OrderBy(entry => entry.Key, StringComparer.Ordinal)];
            if (choices.Length == 0)
            {
                return null;
            }

            KeyValuePair<string, T> choice = choices[Next(choices.Length)];
            return (choice.Key, choice.Value);
        }
    }
}
