using System.Diagnostics;
using System.Text.Json.Nodes;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>The images that a simulated disk has, as files for QEMU to judge: each is clean, and reads as the model of its volume says.</summary>
internal sealed class ExportedImages : IDisposable
{
    private const string Volumes = DurablePlatform.Root + "/volumes";

    private readonly string _folder = Directory.CreateDirectory(Path.Combine(Directory.Exists("/dev/shm") ? "/dev/shm" : Path.GetTempPath(), $"unikraft-exported-{Guid.NewGuid():N}")).FullName;
    private readonly string _journal;

    /// <param name="disk">The disk, once nobody has an image of it open any more.</param>
    internal ExportedImages(SimulatedDisk disk)
    {
        foreach (string file in disk.Files.Where(static file => file.StartsWith(Volumes + "/", StringComparison.Ordinal)))
        {
            File.WriteAllBytes(Path.Combine(_folder, Path.GetFileName(file)), disk.Content(file));
        }

        string journal = Path.Combine(_folder, "volumes.journal");
        _journal = File.Exists(journal) ? File.ReadAllText(journal) : "";
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>Has them judged, in one process that starts the others: there are thousands.</summary>
    internal void Judge(IReadOnlyDictionary<Guid, SectorModel> volumes, string context)
    {
        Dictionary<Guid, string> tops = FindTops();
        Assert.Empty(volumes.Keys.Except(tops.Keys));
        const string Script = """
            command -v qemu-img > /dev/null || exit 77
            for image in *.qcow2; do [ -e "$image" ] || continue; qemu-img check -q -f qcow2 "$image" || { echo "$image is not clean"; exit 1; }; done
            for top; do qemu-img convert -f qcow2 -O raw "$top" "$top.content" || exit 1; done
            """;
        using Process shell = Process.Start(new ProcessStartInfo("sh", ["-c", Script + " 2>&1", "sh", .. volumes.Keys.Select(volume => tops[volume])])
        {
            WorkingDirectory = _folder,
            UseShellExecute = false,
            RedirectStandardOutput = true,
        })!;
        string said = shell.StandardOutput.ReadToEnd();
        shell.WaitForExit();
        if (shell.ExitCode == 77)
        {
            // Those who judge are not installed.
            return;
        }

        Assert.True(shell.ExitCode == 0, $"{context}: {said}");
        foreach ((Guid volume, SectorModel model) in volumes)
        {
            model.AssertMayBe(File.ReadAllBytes(Path.Combine(_folder, tops[volume] + ".content")), $"{context}, as QEMU reads {volume}");
        }
    }

    private Dictionary<Guid, string> FindTops()
    {
        Dictionary<Guid, string> tops = [];
        foreach (string line in _journal.TrimEnd('\0').Split('\n').Skip(1).Where(static line => line.Length > 0))
        {
            JsonNode change = JsonNode.Parse(line[line.IndexOf('{', StringComparison.Ordinal)..])!;
            foreach (JsonNode? record in change["Set"] as JsonArray ?? [])
            {
                if ((string?)record!["Top"] is { } top)
                {
                    tops[(Guid)record["Uuid"]!] = top;
                }
            }
        }

        return tops;
    }
}
