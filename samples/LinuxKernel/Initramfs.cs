using System.Globalization;
using System.Text;

namespace LinuxKernel;

/// <summary>An initial RAM disk, a cpio archive in the form "newc", with busybox and a shell on the console.</summary>
internal static class Initramfs
{
    private const int Folder = 0x41ED;
    private const int Program = 0x81ED;
    private const int CharacterDevice = 0x2180;

    private const string Init = """
        #!/bin/busybox sh
        /bin/busybox --install -s /bin
        export PATH=/bin HOME=/ PS1='# '
        mount -t proc proc /proc
        mount -t sysfs sys /sys
        mount -t devtmpfs dev /dev
        echo "Linux $(uname -r) on $(nproc) vCPU(s). poweroff ends it."
        setsid cttyhack sh
        poweroff -f

        """;

    public static byte[] Build(byte[] busybox)
    {
        using MemoryStream archive = new();
        int entries = 0;
        foreach (string name in (ReadOnlySpan<string>)["bin", "dev", "proc", "sys"])
        {
            Add(name, Folder, []);
        }

        Add("dev/console", CharacterDevice, [], major: 5, minor: 1);
        Add("bin/busybox", Program, busybox);
        Add("init", Program, Encoding.ASCII.GetBytes(Init));
        Add("TRAILER!!!", 0, []);
        return archive.ToArray();

        void Add(string name, int mode, byte[] content, int major = 0, int minor = 0)
        {
            int[] fields = [++entries, mode, 0, 0, 1, 0, content.Length, 0, 0, major, minor, name.Length + 1, 0];
            string header = string.Concat(fields.Select(static field => field.ToString("X8", CultureInfo.InvariantCulture)));
            archive.Write(Encoding.ASCII.GetBytes($"070701{header}{name}\0"));
            Align();
            archive.Write(content);
            Align();
        }

        void Align() => archive.Write(new byte[(4 - archive.Length % 4) % 4]);
    }
}
