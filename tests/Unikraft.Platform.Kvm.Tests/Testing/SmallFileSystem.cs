using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>A file system that is soon full, in memory.</summary>
internal sealed class SmallFileSystem : IAsyncDisposable
{
    private const int Page = 4096;

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("unikraft-small-");

    internal string Path => _directory.FullName;

    private string Ballast => System.IO.Path.Combine(Path, "ballast");

    public async ValueTask DisposeAsync()
    {
        Assert.Equal(0, (await ProcessResult.RunAsync("umount", [Path])).ExitCode);
        _directory.Delete();
    }

    internal static async Task<SmallFileSystem> MountAsync(int sizeMb)
    {
        SmallFileSystem small = new();
        ProcessResult result = await ProcessResult.RunAsync("mount", ["-t", "tmpfs", "-o", $"size={sizeMb}m,huge=never", "tmpfs", small.Path]);
        Assert.True(result.ExitCode == 0, result.Output);
        return small;
    }

    /// <summary>Takes all the room but a few pages.</summary>
    internal void Fill(int freePages = 0)
    {
        using FileStream file = new(Ballast, FileMode.OpenOrCreate, FileAccess.Write, FileShare.None, bufferSize: 0);
        file.Position = file.Length;
        foreach (int part in (int[])[1 << 20, Page])
        {
            try
            {
                byte[] zeroes = new byte[part];
                while (true)
                {
                    file.Write(zeroes);
                }
            }
            catch (IOException error) when (error.HResult == Libc.ErrnoNoSpace)
            {
                // What was written of it stays.
                file.Position = file.Length;
            }
        }

        file.SetLength((file.Length & -Page) - freePages * Page);
    }

    /// <summary>Gives the room back.</summary>
    internal void Free() => File.Delete(Ballast);
}
