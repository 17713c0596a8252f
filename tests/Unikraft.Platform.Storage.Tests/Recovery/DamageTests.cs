using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Bytes that change, files that are cut, grow, vanish or change places: all is found or harmless, nothing is used.</summary>
public sealed class DamageTests
{
    private const string CountVariable = "UNIKRAFT_DAMAGES";

    [Fact]
    public async Task Damage_anywhere_in_a_directory_is_found_or_harmless()
    {
        int count = int.TryParse(Environment.GetEnvironmentVariable(CountVariable), out int wanted) ? wanted : 600;
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("one");
        await before.TickAsync("one");
        await before.CheckpointAsync("one", "a");
        await before.CheckpointAsync("one", "b");
        await before.CreateCounterAsync("base");
        await before.Templates.ConvertAsync("base").Guarded();
        await before.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Template = "base", Autostart = false }).Guarded();
        await before.Instances.StopAsync("one").Guarded();
        await before.DisposeAsync();
        string[] files = [.. before.Disk.Files.Where(file => !file.EndsWith("/lock", StringComparison.Ordinal))];
        string expected = await DescribeAsync(before.Disk.AfterKill());
        Random random = new(23);
        int found = 0;
        for (int i = 0; i < count; i++)
        {
            SimulatedDisk disk = before.Disk.AfterKill();
            string file = files[random.Next(files.Length)];
            byte[] content = disk.Content(file);
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
                    break;
                case 4:
                    disk.Damage(file, null);
                    disk.Damage(files[random.Next(files.Length)], content);
                    break;
                default:
                    // Journals are mostly room for what is to come.
                    int end = Array.FindLastIndex(content, value => value != 0) + 1;
                    if (end == 0)
                    {
                        continue;
                    }

                    content[random.Next(end)] ^= (byte)(1 << random.Next(8));
                    disk.Damage(file, content);
                    break;
            }

            string actual;
            try
            {
                actual = await DescribeAsync(disk);
            }
            catch (PlatformException error) when (error is DataDamageException or DataVersionException)
            {
                found++;
                continue;
            }

            found += actual.StartsWith("damage", StringComparison.Ordinal) ? 1 : 0;
            Assert.True(actual.StartsWith("damage", StringComparison.Ordinal) || string.Equals(actual, expected, StringComparison.Ordinal), $"{i}: {file}: {actual}");
        }

        Assert.True(found > count / 2, $"{found} of {count} found");
    }

    // What a platform shows, unless it says that something is damaged.
    private static async Task<string> DescribeAsync(SimulatedDisk disk)
    {
        await using DurablePlatform platform = new(disk);
        if (platform.Platform.Data!.DamageFound.Count > 0 || platform.HasWarned)
        {
            return "damage at the start";
        }

        if (await platform.Platform.Data!.VerifyAsync().Guarded() is { Count: > 0 } damage)
        {
            return $"damage: {damage[0]}";
        }

        return string.Join(
            '\n',
            [
                .. platform.Instances.List().Select(instance => $"{instance.Name} {instance.State} {instance.StartCount} {platform.Instances.ReadLog(instance.Uuid).Text}"),
                .. platform.Checkpoints.List().Select(checkpoint => $"{checkpoint.Name} {string.Join(',', platform.Checkpoints.GetHistory(checkpoint.Uuid).Select(entry => entry.Name))}"),
                .. platform.Templates.List().Select(template => template.Name),
            ]);
    }
}
