using System.Diagnostics;
using System.Reflection;
using System.Reflection.Emit;

namespace Unikraft.Platform.CrashChild;

/// <summary>
/// The places of the library that take something to the disk, or give or take a name: <c>kind@Type.Method</c>, of the method that asks for it of whatever passes it on to the host.
/// </summary>
public static class CallSites
{
    /// <summary>What passes calls on to the host, and has no reasons of its own.</summary>
    private static readonly HashSet<string> Passing = new(StringComparer.Ordinal)
    {
        "DataFiles", "StoredStream", "FileStore", "StoredFile", "Publication", "DirectorySync", "HostFileLayer", "HostFileSystem", "UnsyncedFileSystem", "IFile", "IFileLayer", "IFileSystem", "IDirectorySync",
    };

    private static readonly string[] Decisive = ["Sync", "SyncData", "Rename", "Delete", "DeleteDirectory", "SyncDirectory"];

    /// <summary>Finds all places in an assembly, by reading its code.</summary>
    /// <param name="assembly">The assembly.</param>
    public static IReadOnlySet<string> Of(Assembly assembly)
    {
        ArgumentNullException.ThrowIfNull(assembly);
        Dictionary<MethodBase, HashSet<MethodBase>> callees = [];
        foreach (MethodBase method in assembly.GetTypes().SelectMany(static type => type.GetMethods(All).Cast<MethodBase>().Concat(type.GetConstructors(All))))
        {
            callees[method] = [.. CalledBy(method)];
        }

        // Which kinds of calls each method that passes them on makes.
        Dictionary<MethodBase, HashSet<string>> kinds = [];
        foreach (MethodBase method in callees.Keys.Concat(callees.Values.SelectMany(static methods => methods)).Where(IsPassing))
        {
            kinds.TryAdd(method, method.DeclaringType!.IsInterface && KindOf(method) is { } kind ? [kind] : []);
        }

        bool isGrowing = true;
        while (isGrowing)
        {
            isGrowing = false;
            foreach (MethodBase method in kinds.Keys.ToArray())
            {
                foreach (MethodBase callee in callees.GetValueOrDefault(method) ?? [])
                {
                    int before = kinds[method].Count;
                    kinds[method].UnionWith(kinds.GetValueOrDefault(callee) ?? []);
                    isGrowing |= kinds[method].Count != before;
                }
            }
        }

        return callees
            .Where(static entry => !IsPassing(entry.Key))
            .SelectMany(entry => entry.Value.SelectMany(callee => kinds.GetValueOrDefault(callee) ?? []).Select(kind => $"{kind}@{NameOf(entry.Key)}"))
            .ToHashSet(StringComparer.Ordinal);
    }

    /// <summary>The place that a call comes from.</summary>
    internal static string Current(string kind)
    {
        foreach (StackFrame frame in new StackTrace(fNeedFileInfo: false).GetFrames())
        {
            if (frame.GetMethod() is { DeclaringType: not null } method && method.DeclaringType.Assembly != typeof(CallSites).Assembly
                && method.DeclaringType.Namespace?.StartsWith("Unikraft", StringComparison.Ordinal) is true && !IsPassing(method))
            {
                return $"{kind}@{NameOf(method)}";
            }
        }

        return $"{kind}@unknown";
    }

    private const BindingFlags All = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;

    private static readonly Dictionary<short, OpCode> OpCodesByValue = typeof(OpCodes).GetFields(BindingFlags.Public | BindingFlags.Static)
        .Select(static field => (OpCode)field.GetValue(null)!)
        .ToDictionary(static code => code.Value);

    // The second is given what it calls, by a method of its own type.
    private static bool IsPassing(MethodBase method) => Passing.Contains(OuterOf(method).Name) || NameOf(method) is "ImageFile.Repeat";

    private static string? KindOf(MethodBase method) => Decisive.FirstOrDefault(kind => string.Equals(kind, method.Name, StringComparison.Ordinal)) switch
    {
        "SyncData" => "Sync",
        "Sync" when string.Equals(method.DeclaringType!.Name, "IDirectorySync", StringComparison.Ordinal) => "SyncDirectory",
        var kind => kind,
    };

    private static Type OuterOf(MethodBase method)
    {
        Type type = method.DeclaringType!;
        while (type.DeclaringType is { } outer)
        {
            type = outer;
        }

        return type;
    }

    // Of what the compiler has made of a method, the method.
    private static string NameOf(MethodBase method)
    {
        string name = method.Name;
        for (Type? type = method.DeclaringType; type is not null && !IsMade(name); type = type.DeclaringType)
        {
            name = IsMade(type.Name) && Written(type.Name) is { Length: > 0 } ? type.Name : name;
        }

        return $"{OuterOf(method).Name}.{(IsMade(name) ? Written(name) : name)}";
    }

    private static bool IsMade(string name) => name.StartsWith('<');

    private static string Written(string name)
    {
        string written = name[(name.LastIndexOf('<') + 1)..];
        return written[..Math.Max(0, written.IndexOf('>', StringComparison.Ordinal))];
    }

    private static IEnumerable<MethodBase> CalledBy(MethodBase method)
    {
        if (method.GetMethodBody()?.GetILAsByteArray() is not { } code)
        {
            yield break;
        }

        Type[] typeArguments = method.DeclaringType!.GetGenericArguments();
        Type[] arguments = method.IsGenericMethodDefinition ? method.GetGenericArguments() : [];
        for (int at = 0; at < code.Length;)
        {
            short value = code[at] == 0xFE ? (short)(0xFE00 | code[at + 1]) : code[at];
            OpCode operation = OpCodesByValue[value];
            at += operation.Size;
            if (operation.OperandType is OperandType.InlineMethod)
            {
                MethodBase? callee = method.Module.ResolveMethod(BitConverter.ToInt32(code, at), typeArguments, arguments);
                if (callee?.DeclaringType is not null)
                {
                    yield return callee is MethodInfo { IsGenericMethod: true } generic ? generic.GetGenericMethodDefinition() : callee;
                }
            }

            at += operation.OperandType switch
            {
                OperandType.InlineNone => 0,
                OperandType.ShortInlineBrTarget or OperandType.ShortInlineI or OperandType.ShortInlineVar => 1,
                OperandType.InlineVar => 2,
                OperandType.InlineI8 or OperandType.InlineR => 8,
                OperandType.InlineSwitch => 4 + (4 * BitConverter.ToInt32(code, at)),
                _ => 4,
            };
        }
    }
}
