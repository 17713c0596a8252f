using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Which host a snapshot can run on.</summary>
public sealed class HostMachineTests
{
    private static readonly Dictionary<string, string> Here = new(StringComparer.Ordinal)
    {
        ["hypervisor"] = "kvm",
        ["format"] = "3",
        ["kvm.flavour"] = "vmx",
        ["cpu.vendor"] = "GenuineIntel",
        ["cpu.features.1"] = "0f3a",
    };

    [Fact]
    public void The_same_host_has_everything()
    {
        Assert.Null(HostMachine.Compare(Here, Here));
        Assert.Null(HostMachine.Compare(HostMachine.Describe(), HostMachine.Describe()));
    }

    [Theory]
    [InlineData("hypervisor", "other")]
    [InlineData("format", "4")]
    [InlineData("format", "2")]
    [InlineData("kvm.flavour", "svm")]
    [InlineData("cpu.vendor", "AuthenticAMD")]
    [InlineData("cpu.features.1", "1000")]
    [InlineData("cpu.features.1", "0f3b")]
    [InlineData("cpu.features.1", "0f3")]
    [InlineData("cpu.features.1", "0f3a0")]
    [InlineData("cpu.features.1", "0f3g")]
    [InlineData("cpu.features.1", "")]
    [InlineData("cpu.features.7", "0001")]
    public void What_is_missing_is_named(string key, string needed)
    {
        string? missing = HostMachine.Compare(new Dictionary<string, string>(Here, StringComparer.Ordinal) { [key] = needed }, Here);

        Assert.Contains(key, missing, StringComparison.Ordinal);
        Assert.Contains(needed, missing, StringComparison.Ordinal);
    }

    /// <remarks>LZCNT is bit 5 of 80000001:ECX, SYSCALL bit 11 of its EDX; XSAVEC bit 1 of D.1:EAX.</remarks>
    [Fact]
    public void A_host_says_all_that_guests_may_use_of_it()
    {
        IReadOnlyDictionary<string, string> here = HostMachine.Describe();
        string[] leaves = System.Runtime.Intrinsics.X86.X86Base.CpuId(0, 0).Eax >= 0xD
            ? ["1", "7", "7.1", "80000001", "d", "d.1"]
            : ["1", "80000001"];

        Assert.Equal(leaves.Select(leaf => $"cpu.features.{leaf}"), here.Keys.Where(key => key.StartsWith("cpu.features.", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        string extended = here["cpu.features.80000001"];
        Assert.Equal(16, extended.Length);
        Assert.Equal(System.Runtime.Intrinsics.X86.Lzcnt.IsSupported, (Convert.ToUInt32(extended[..8], 16) & (1 << 5)) != 0);
        Assert.NotEqual(0u, Convert.ToUInt32(extended[8..], 16) & (1 << 11));
    }

    [Fact]
    public void What_an_older_archive_does_not_say_is_not_compared()
    {
        Dictionary<string, string> here = new(Here, StringComparer.Ordinal) { ["cpu.features.80000001"] = "0021" };

        Assert.Null(HostMachine.Compare(Here, here));
        Assert.Contains("cpu.features.80000001", HostMachine.Compare(here, Here), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("hypervisor")]
    [InlineData("format")]
    [InlineData("kvm.flavour")]
    [InlineData("cpu.vendor")]
    public void An_archive_that_does_not_say_what_it_needs_is_refused(string key)
    {
        Dictionary<string, string> needed = new(Here, StringComparer.Ordinal);
        needed.Remove(key);

        Assert.Contains(key, HostMachine.Compare(needed, Here), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("0f3a")]
    [InlineData("0000")]
    [InlineData("0832")]
    public void More_than_is_needed_does_no_harm(string needed) =>
        Assert.Null(HostMachine.Compare(new Dictionary<string, string>(Here, StringComparer.Ordinal) { ["cpu.features.1"] = needed }, Here));
}
