using System.Globalization;
using System.Runtime.Intrinsics.X86;
using System.Text;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>What a snapshot of a machine needs of the host that it is restored on.</summary>
internal static class HostMachine
{
    private const string Hypervisor = "hypervisor";
    private const string Format = "format";
    private const string Flavour = "kvm.flavour";
    private const string Vendor = "cpu.vendor";
    private const string FeaturePrefix = "cpu.features.";

    internal static IReadOnlyDictionary<string, string> Describe()
    {
        Dictionary<string, string> machine = new(StringComparer.Ordinal)
        {
            [Hypervisor] = "kvm",
            [Format] = StateFile.Version.ToString(CultureInfo.InvariantCulture),
            [Flavour] = FlavourOfHost(),
        };
        if (X86Base.IsSupported)
        {
            (int highest, int ebx, int ecx, int edx) = X86Base.CpuId(0, 0);
            machine[Vendor] = Encoding.ASCII.GetString([.. BitConverter.GetBytes(ebx), .. BitConverter.GetBytes(edx), .. BitConverter.GetBytes(ecx)]);
            (_, _, int basicEcx, int basicEdx) = X86Base.CpuId(1, 0);
            machine[FeaturePrefix + "1"] = Hex(basicEcx, basicEdx);
            if (highest >= 0xD)
            {
                (_, int extendedEbx, int extendedEcx, int extendedEdx) = X86Base.CpuId(7, 0);
                machine[FeaturePrefix + "7"] = Hex(extendedEbx, extendedEcx, extendedEdx);
                (int stateEax, _, _, int stateEdx) = X86Base.CpuId(0xD, 0);
                machine[FeaturePrefix + "d"] = Hex(stateEax, stateEdx);
                (int moreEax, _, _, int moreEdx) = X86Base.CpuId(7, 1);
                machine[FeaturePrefix + "7.1"] = Hex(moreEax, moreEdx);

                // How the area of extended state is laid out, and what of it the kernel alone may use.
                (int layoutEax, _, int layoutEcx, int layoutEdx) = X86Base.CpuId(0xD, 1);
                machine[FeaturePrefix + "d.1"] = Hex(layoutEax, layoutEcx, layoutEdx);
            }

            // An instruction that is missing of these may be another one there: LZCNT is BSR, and its result a wrong number.
            (int highestExtended, _, _, _) = X86Base.CpuId(unchecked((int)0x8000_0000), 0);
            if (unchecked((uint)highestExtended) is >= 0x8000_0001 and < 0x8001_0000)
            {
                (_, _, int extendedEcx, int extendedEdx) = X86Base.CpuId(unchecked((int)0x8000_0001), 0);
                machine[FeaturePrefix + "80000001"] = Hex(extendedEcx, extendedEdx);
            }
        }

        return machine;
    }

    /// <summary>What a machine has not that another one has; <see langword="null"/> for nothing.</summary>
    internal static string? Compare(IReadOnlyDictionary<string, string> needed, IReadOnlyDictionary<string, string> present)
    {
        foreach (string key in (string[])[Hypervisor, Format, Flavour, Vendor])
        {
            string wanted = needed.GetValueOrDefault(key, "");
            string found = present.GetValueOrDefault(key, "");
            if (!string.Equals(wanted, found, StringComparison.Ordinal))
            {
                return $"its {key} is '{wanted}', and here it is '{found}'";
            }
        }

        foreach ((string key, string wanted) in needed.Where(static entry => entry.Key.StartsWith(FeaturePrefix, StringComparison.Ordinal)))
        {
            string found = present.GetValueOrDefault(key, "");
            if (!Has(found, wanted))
            {
                return $"its {key} are {wanted}, and here they are {(found.Length == 0 ? "none" : found)}";
            }
        }

        return null;
    }

    // In which way a host virtualises decides about the registers that a state has: see the module that stands behind the device.
    private static string FlavourOfHost() =>
        Directory.Exists("/sys/module/kvm_pvm") ? "pvm"
        : Directory.Exists("/sys/module/kvm_amd") ? "svm"
        : Directory.Exists("/sys/module/kvm_intel") ? "vmx"
        : "unknown";

    private static string Hex(params ReadOnlySpan<int> registers)
    {
        StringBuilder text = new();
        foreach (int register in registers)
        {
            text.Append(CultureInfo.InvariantCulture, $"{register:x8}");
        }

        return text.ToString();
    }

    private static bool Has(string present, string needed)
    {
        if (present.Length != needed.Length)
        {
            return false;
        }

        for (int i = 0; i < needed.Length; i++)
        {
            if (!char.IsAsciiHexDigit(needed[i]) || (Convert.ToInt32(needed[i].ToString(), 16) & ~Convert.ToInt32(present[i].ToString(), 16)) != 0)
            {
                return false;
            }
        }

        return true;
    }
}
