using System.Text.RegularExpressions;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Architecture.Tests;

/// <summary>No test leaves a disk image behind that QEMU's tools have not looked at.</summary>
public sealed partial class JudgedImageTests
{
    /// <summary>What makes images for others, who have to let them be judged.</summary>
    private static readonly string[] Makers = ["LineageModel", "ModelCommand", "ModelRun", "Program", "Qemu", "Script", "VolumeModel"];

    /// <summary>Whose images are never files: in memory, or on a simulated disk, where they are read again and verified by the library itself.</summary>
    private static readonly string[] InMemory = ["ArchiveTests", "ClockTests", "DurabilityTests", "FaultKindTests", "FurnishedDisk", "HostileImageTests", "L2CacheTests", "VerificationTests"];

    [Fact]
    public void Every_test_that_makes_disk_images_lets_them_be_judged()
    {
        var classes = Directory.EnumerateFiles(Repository.PathOf("tests"), "*.cs", SearchOption.AllDirectories)
            .Select(path => (Path: Path.GetRelativePath(Repository.Root, path), Code: File.ReadAllText(path)))
            .Where(source => !source.Path.Contains("/obj/", StringComparison.Ordinal)
                && !source.Path.Contains("/Unikraft.Platform.Architecture.Tests/", StringComparison.Ordinal))
            .GroupBy(source => (Folder: Path.GetDirectoryName(source.Path), Name: Path.GetFileName(source.Path).Split('.')[0]))
            .Where(parts => parts.Any(part => Making().IsMatch(part.Code)))
            .ToArray();
        IEnumerable<string> strays = classes
            .Where(parts => !parts.Any(part => Judging().IsMatch(part.Code)) && !Makers.Contains(parts.Key.Name, StringComparer.Ordinal)
                && !InMemory.Contains(parts.Key.Name, StringComparer.Ordinal))
            .Select(parts => parts.First().Path);

        Assert.Empty(strays);
        Assert.InRange(classes.Length, 12, 100);
    }

    [Theory]
    [InlineData("await volumes.CreateAsync(new CreateVolumeRequest { SizeMb = 1 });", true)]
    [InlineData("Volumes = [new InstanceVolume { SizeMb = 8, At = \"/data\" }],", true)]
    [InlineData("VolumeDisk.CreateAsync(path, size)", true)]
    [InlineData("Qemu.Img(\"create\", \"-q\", \"-f\", \"qcow2\", path, \"1M\")", true)]
    [InlineData("ModelCommand.Generate(seed, Commands, ModelScope.Volumes)", true)]
    [InlineData("IVolumeStore volumes = platform.Volumes;", false)]
    public void The_scan_finds_what_it_looks_for(string code, bool isFound) => Assert.Equal(isFound, Making().IsMatch(code));

    [GeneratedRegex(
        @"new CreateVolumeRequest\b|new InstanceVolume\b|VolumeDisk\.CreateAsync|Qcow2Image\.Create|""-f"", ""qcow2""|ModelScope\.Volumes|CrashHost\.dll",
        RegexOptions.None,
        matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Making();

    [GeneratedRegex(@"\bJudgedFolder\b|\bLeftImages\b|\bExportedImages\b", RegexOptions.None, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Judging();
}
