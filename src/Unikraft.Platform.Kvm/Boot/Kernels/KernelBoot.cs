using System.Text;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>What a kernel is booted with, checked.</summary>
/// <param name="Image">The kernel.</param>
/// <param name="Initrd">Its initial RAM disk; empty for none.</param>
/// <param name="CommandLine">Its command line.</param>
internal sealed record KernelBoot(KernelImage Image, ReadOnlyMemory<byte> Initrd, string CommandLine)
{
    /// <summary>What a kernel that nobody gave a command line is told: where its console is, and that a panic is a reset.</summary>
    internal const string DefaultCommandLine = "console=ttyS0 panic=-1";

    private const char Quote = '"';

    /// <summary>Recognises a kernel by its content.</summary>
    /// <returns>What to boot; null when the image is none, but perhaps a flat guest.</returns>
    /// <exception cref="ImageException">It is a damaged kernel, or no image at all.</exception>
    /// <exception cref="InvalidRequestException">The arguments cannot be passed on a command line.</exception>
    internal static KernelBoot? Find(MachineConfiguration configuration, GuestImageContent content)
    {
        List<string> reasons = [];
        string name = configuration.Image.Name;
        if (KernelImage.Find(name, content.Kernel, reasons) is { } image)
        {
            return new KernelBoot(image, content.Initrd, Compose(image, content, configuration));
        }

        bool isElf = content.Kernel.Span.StartsWith("\u007fELF"u8);
        return isElf && content.Initrd.IsEmpty && content.CommandLine is null
            ? null
            : throw new ImageException(
                ImageError.UnknownFormat,
                name,
                $"The image '{name}' is neither a flat guest (no ELF file, or one with an initrd or a command line) nor a kernel that can be booted. Tried were {string.Join(", ", reasons)}.");
    }

    /// <summary>The command line with its NUL.</summary>
    /// <exception cref="InvalidRequestException">It is too long for this kernel, or contains a NUL.</exception>
    internal byte[] EncodeCommandLine()
    {
        if (CommandLine.Contains('\0', StringComparison.Ordinal))
        {
            throw new InvalidRequestException("The command line of a kernel cannot contain a NUL character.");
        }

        byte[] text = [.. Encoding.UTF8.GetBytes(CommandLine), 0];
        return text.Length - 1 <= Image.MaxCommandLine
            ? text
            : throw new InvalidRequestException(
                $"The command line has {text.Length - 1} bytes; the kernel '{Image.Name}' takes {Image.MaxCommandLine}. Pass fewer or shorter arguments.");
    }

    /// <summary>Puts the command line together; docs/images.md has the rules.</summary>
    private static string Compose(KernelImage image, GuestImageContent content, MachineConfiguration configuration)
    {
        IReadOnlyList<string> args = configuration.Args.Count > 0 ? configuration.Args : content.Args;
        Dictionary<string, string> environment = new(content.Env, StringComparer.Ordinal);
        foreach ((string name, string value) in configuration.Env)
        {
            environment[name] = value;
        }

        IEnumerable<string> variables = environment.Select(static variable => Quoted($"{variable.Key}={variable.Value}"));
        IEnumerable<string> words = image.IsUnikraft
            ?
            [
                configuration.Name,
                .. content.CommandLine is { } parameters ? [parameters] : Array.Empty<string>(),
                .. environment.Count > 0 ? ["env.vars=[", .. variables, "]"] : Array.Empty<string>(),
                "--",
                .. args.Select(Quoted),
            ]
            : [content.CommandLine ?? DefaultCommandLine, .. variables, .. args.Select(Quoted)];
        return string.Join(' ', words);
    }

    /// <summary>One word of a command line. No kernel has a way to write a quotation mark.</summary>
    private static string Quoted(string word)
    {
        if (word.Contains(Quote, StringComparison.Ordinal) || word.Contains('\n', StringComparison.Ordinal))
        {
            throw new InvalidRequestException($"'{word}' cannot be passed on the command line of a kernel: it has a quotation mark or a line break.");
        }

        return word.Length == 0 || word.Contains(' ', StringComparison.Ordinal) ? $"{Quote}{word}{Quote}" : word;
    }
}
