using System.Text;
using System.Text.Json.Nodes;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Bytes that change, files that are cut, grow, vanish or change places: all is found or harmless, nothing is used.</summary>
public sealed class DamageTests
{
    private const string Guests = "\nguests: ";
    private const string Damaged = "damaged";
    private const string CountVariable = "UNIKRAFT_DAMAGES";

    [Fact]
    public async Task Damage_anywhere_in_a_directory_is_found_or_harmless()
    {
        int count = int.TryParse(Environment.GetEnvironmentVariable(CountVariable), out int wanted) ? wanted : 600;
        SimulatedDisk sound = await FurnishedDisk.MakeAsync();
        string[] writable = WritableImages(sound);
        string[] files = [.. sound.Files.Where(file => !file.EndsWith("/lock", StringComparison.Ordinal))];
        string expected = await DescribeAsync(sound.AfterKill(), readsVolumes: true);
        string expectedOfRecords = expected[..expected.IndexOf(Guests, StringComparison.Ordinal)];
        Dictionary<string, string> expectedOfGuests = await LoadAsync(sound.AfterKill(), touched: [], readsVolumes: true);
        Assert.DoesNotContain(Damaged, expectedOfGuests.Values);
        Random random = new(23);
        int found = 0;
        int loaded = 0;
        for (int i = 0; i < count; i++)
        {
            SimulatedDisk disk = sound.AfterKill();
            string file = files[random.Next(files.Length)];
            byte[] content = disk.Content(file);
            bool isFlip = false;
            List<string> touched = [file];
            switch (random.Next(10))
            {
                case 0:
                    disk.Damage(file, content[..random.Next(content.Length)]);
                    break;
                case 1:
                    disk.Damage(file, [.. content, .. new byte[random.Next(1, 600)].Select(_ => (byte)random.Next(256))]);
                    break;
                case 2:
                    disk.Damage(file, null);
                    break;
                case 3:
                    string other = files[random.Next(files.Length)];
                    disk.Damage(file, disk.Content(other));
                    disk.Damage(other, content);
                    touched.Add(other);
                    break;
                case 4:
                    string replaced = files[random.Next(files.Length)];
                    disk.Damage(file, null);
                    disk.Damage(replaced, content);
                    touched.Add(replaced);
                    break;
                default:
                    // Journals are mostly room for what is to come.
                    int end = Array.FindLastIndex(content, value => value != 0) + 1;
                    if (end == 0)
                    {
                        continue;
                    }

                    isFlip = true;
                    content = [.. content];
                    content[random.Next(end)] ^= (byte)(1 << random.Next(8));
                    disk.Damage(file, content);
                    break;
            }

            bool isOfVolumes = file.Contains("/volumes/", StringComparison.Ordinal);
            string actual;
            try
            {
                if (i % 3 == 0)
                {
                    // Nobody has looked for damage: what a guest runs on is looked at then.
                    Dictionary<string, string> answers = await LoadAsync(disk, touched, readsVolumes: i % (isOfVolumes ? 6 : 24) == 0);
                    bool isTheirs = isFlip && writable.Contains(file);
                    foreach ((string name, string answer) in answers.Where(static entry => !string.Equals(entry.Value, Damaged, StringComparison.Ordinal)))
                    {
                        Assert.True(string.Equals(answer, expectedOfGuests[name], StringComparison.Ordinal) || (isTheirs && name.Contains('/', StringComparison.Ordinal)), $"{i}: {string.Join(' ', touched)}: {name} says {answer}");
                    }

                    found += answers.ContainsValue(Damaged) ? 1 : 0;
                    loaded++;
                    continue;
                }

                actual = await DescribeAsync(disk, readsVolumes: i % (isOfVolumes ? 4 : 24) == 1, touched);
            }
            catch (PlatformException error) when (error is DataDamageException or DataVersionException)
            {
                found++;
                continue;
            }

            found += actual.StartsWith("damage", StringComparison.Ordinal) ? 1 : 0;

            // What guests have written to a volume that they go on writing to is theirs: no checksum could know it.
            string due = isFlip && writable.Contains(file) || !actual.Contains(Guests, StringComparison.Ordinal) ? expectedOfRecords : expected;
            Assert.True(actual.StartsWith("damage", StringComparison.Ordinal) || actual.StartsWith(due, StringComparison.Ordinal), $"{i}: {file}: {actual}");
        }

        // What is not loaded is not found in the cases without a verification.
        Assert.True(found > (count - loaded) / 2, $"{found} of {count} found");
    }

    // The images that take the writes of volumes, as the journal has them.
    private static string[] WritableImages(SimulatedDisk disk)
    {
        Dictionary<string, JsonNode> records = new(StringComparer.Ordinal);
        foreach (JsonNode change in Encoding.UTF8.GetString(disk.Content("/data/volumes/volumes.journal")).TrimEnd('\0').Split('\n').Skip(1).Where(line => line.Length > 0)
            .Select(line => JsonNode.Parse(line[line.IndexOf('{', StringComparison.Ordinal)..])!))
        {
            foreach (JsonNode? record in change["Set"] as JsonArray ?? [])
            {
                records[(string)record!["Uuid"]!] = record;
            }
        }

        return [.. records.Values.Where(record => (bool?)record["IsTemplate"] is not true).Select(record => $"/data/volumes/{(string?)record["Top"]}")];
    }

    private static async Task<string> ReadVolumesAsync(DurablePlatform platform)
    {
        List<string> said = [];
        foreach (FurnishedDisk.Load load in FurnishedDisk.Loads.Skip(FurnishedDisk.OfCounters))
        {
            said.Add(await load.Ask(platform));
        }

        return string.Join(' ', said);
    }

    // What guests say that are made of what is kept, without a verification before; of what is damaged, that it is.
    private static async Task<Dictionary<string, string>> LoadAsync(SimulatedDisk disk, IReadOnlyList<string> touched, bool readsVolumes)
    {
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        bool isKnown = platform.Platform.Data!.DamageFound.Count > 0 || platform.HasWarned;
        Dictionary<string, string> answers = new(StringComparer.Ordinal);
        foreach (FurnishedDisk.Load load in FurnishedDisk.Loads.Take(FurnishedDisk.OfCounters))
        {
            await TryAsync(load.Name, () => load.Ask(platform));
        }

        if (readsVolumes)
        {
            await TryAsync("/volumes", () => ReadVolumesAsync(platform));
        }

        return answers;

        async Task TryAsync(string name, Func<Task<string>> load)
        {
            try
            {
                answers[name] = await load();
            }
            catch (PlatformException error)
            {
                // The others go on: it is about a file that was touched.
                bool isTold = error is DataDamageException damage ? IsAbout(damage.Path, damage.Message, touched) : name.StartsWith('/') || (isKnown && error is ResourceNotFoundException);
                Assert.True(isTold, $"{string.Join(' ', touched)}: {name}: {error}");
                answers[name] = Damaged;
            }
        }
    }

    // A folder stands for its files; a volume names the image, or the journal that was put aside, which it cannot go without.
    private static bool IsAbout(string path, string message, IReadOnlyList<string> touched) => touched.Any(file =>
        file.StartsWith(path, StringComparison.Ordinal) || path.StartsWith(file, StringComparison.Ordinal) || message.Contains(file, StringComparison.Ordinal));

    // What a platform shows, unless it says that something is damaged.
    private static async Task<string> DescribeAsync(SimulatedDisk disk, bool readsVolumes, IReadOnlyList<string>? touched = null)
    {
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        if (platform.Platform.Data!.DamageFound.Count > 0 || platform.HasWarned)
        {
            return "damage at the start";
        }

        if (await platform.Platform.Data!.VerifyAsync().Guarded() is { Count: > 0 } damage)
        {
            Assert.All(damage, each => Assert.True(IsAbout(each.Path, each.ToString(), touched ?? []), $"{string.Join(' ', touched ?? [])}: {each}"));
            return $"damage: {damage[0]}";
        }

        string records = string.Join(
            '\n',
            [
                .. platform.Instances.List().Select(instance => $"{instance.Name} {instance.State} {instance.StartCount} {platform.Instances.ReadLog(instance.Uuid).Text}"),
                .. platform.Checkpoints.List().Select(checkpoint => $"{checkpoint.Name} {string.Join(',', platform.Checkpoints.GetHistory(checkpoint.Uuid).Select(entry => entry.Name))}"),
                .. platform.Templates.List().Select(template => template.Name),
                .. platform.Platform.Volumes.List().Concat(platform.Platform.Volumes.ListTemplates())
                    .Select(volume => $"{volume.Name} {volume.State} {volume.SizeMb} {volume.Depth} {volume.Error} {string.Join(',', volume.AttachedTo.Select(mount => mount.InstanceName))}"),
            ]);
        if (!readsVolumes)
        {
            return records;
        }

        try
        {
            return records + Guests + await ReadVolumesAsync(platform);
        }
        catch (PlatformException error)
        {
            return $"damage before a guest runs: {error.Message}";
        }
    }
}
