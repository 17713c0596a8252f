using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.Versioning;
using System.Text;

namespace Unikraft.Platform.TestKit;

/// <summary>Renders what an assembly offers to others, for approval: every change of it is then a deliberate one.</summary>
public static class PublicApi
{
    private const BindingFlags Declared =
        BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;

    private static readonly Type[] ShownAttributes =
    [
        typeof(FlagsAttribute),
        typeof(ObsoleteAttribute),
        typeof(SupportedOSPlatformAttribute),
        typeof(UnsupportedOSPlatformAttribute),
        typeof(System.Diagnostics.CodeAnalysis.ExperimentalAttribute),
        typeof(AttributeUsageAttribute),
        typeof(System.Diagnostics.CodeAnalysis.RequiresUnreferencedCodeAttribute),
        typeof(System.Diagnostics.CodeAnalysis.RequiresDynamicCodeAttribute),
    ];

    private static readonly Dictionary<Type, string> Keywords = new()
    {
        [typeof(void)] = "void",
        [typeof(bool)] = "bool",
        [typeof(byte)] = "byte",
        [typeof(sbyte)] = "sbyte",
        [typeof(short)] = "short",
        [typeof(ushort)] = "ushort",
        [typeof(int)] = "int",
        [typeof(uint)] = "uint",
        [typeof(long)] = "long",
        [typeof(ulong)] = "ulong",
        [typeof(nint)] = "nint",
        [typeof(nuint)] = "nuint",
        [typeof(float)] = "float",
        [typeof(double)] = "double",
        [typeof(decimal)] = "decimal",
        [typeof(char)] = "char",
        [typeof(string)] = "string",
        [typeof(object)] = "object",
    };

    /// <summary>Renders all public types with their public and protected members, in an order that does not depend on the source.</summary>
    /// <param name="assembly">The assembly.</param>
    public static string Render(Assembly assembly)
    {
        ArgumentNullException.ThrowIfNull(assembly);
        StringBuilder text = new();
        IEnumerable<IGrouping<string, Type>> namespaces = assembly.GetExportedTypes()
            .Where(type => !type.IsNested)
            .GroupBy(type => type.Namespace ?? "", StringComparer.Ordinal)
            .OrderBy(group => group.Key, StringComparer.Ordinal);
        foreach (IGrouping<string, Type> group in namespaces)
        {
            text.Append("namespace ").Append(group.Key).Append("\n{\n");
            foreach (Type type in group.OrderBy(SortName, StringComparer.Ordinal))
            {
                AppendType(text, type, depth: 1);
            }

            text.Append("}\n");
        }

        return text.ToString();
    }

    private static void AppendType(StringBuilder text, Type type, int depth)
    {
        string indent = new(' ', depth * 4);
        foreach (string attribute in Attributes(type))
        {
            text.Append(indent).Append(attribute).Append('\n');
        }

        if (typeof(Delegate).IsAssignableFrom(type))
        {
            MethodInfo invoke = type.GetMethod("Invoke")!;
            text.Append(indent).Append("public delegate ").Append(Name(invoke.ReturnType)).Append(' ').Append(DeclaredName(type))
                .Append(Parameters(invoke)).Append(Constraints(type)).Append(";\n");
            return;
        }

        text.Append(indent).Append(Access(type)).Append(Kind(type)).Append(' ').Append(DeclaredName(type)).Append(Bases(type))
            .Append(Constraints(type)).Append('\n').Append(indent).Append("{\n");
        string inner = indent + "    ";
        if (type.IsEnum)
        {
            foreach (FieldInfo field in type.GetFields(BindingFlags.Public | BindingFlags.Static).OrderBy(EnumOrder))
            {
                text.Append(inner).Append(field.Name).Append(" = ").Append(Convert.ToString(
                    field.GetRawConstantValue(),
                    System.Globalization.CultureInfo.InvariantCulture)).Append(",\n");
            }
        }
        else
        {
            foreach (string member in Members(type))
            {
                text.Append(inner).Append(member).Append('\n');
            }
        }

        foreach (Type nested in type.GetNestedTypes(Declared).Where(IsVisible).OrderBy(SortName, StringComparer.Ordinal))
        {
            AppendType(text, nested, depth + 1);
        }

        text.Append(indent).Append("}\n");
    }

    private static decimal EnumOrder(FieldInfo field) =>
        Convert.ToDecimal(field.GetRawConstantValue(), System.Globalization.CultureInfo.InvariantCulture);

    private static IEnumerable<string> Members(Type type)
    {
        IEnumerable<(int Order, string Name, string Text)> fields = type.GetFields(Declared).Where(IsVisible)
            .Select(field => (0, field.Name, Prefix(field) + Field(field)));
        IEnumerable<(int Order, string Name, string Text)> constructors = type.GetConstructors(Declared)
            .Where(constructor => !constructor.IsStatic && IsVisible(constructor) && !IsGenerated(constructor))
            .Select(constructor => (1, "", Prefix(constructor) + Access(constructor) + PlainName(type) + Parameters(constructor) + ";"));
        IEnumerable<(int Order, string Name, string Text)> properties = type.GetProperties(Declared)
            .Where(property => property.GetAccessors(true).Any(IsVisible) && !IsGenerated(property))
            .Select(property => (2, property.Name, Prefix(property) + Property(property)));
        IEnumerable<(int Order, string Name, string Text)> events = type.GetEvents(Declared).Where(@event => IsVisible(@event.AddMethod!))
            .Select(@event => (3, @event.Name, $"{Modifiers(@event.AddMethod!)}event {Name(@event.EventHandlerType!)} {@event.Name};"));
        IEnumerable<(int Order, string Name, string Text)> methods = type.GetMethods(Declared)
            .Where(method => IsVisible(method) && !IsGenerated(method) && (!method.IsSpecialName || IsOperator(method)))
            .Select(method => (IsOperator(method) ? 5 : 4, method.Name, Prefix(method) + Method(method)));
        return fields.Concat(constructors).Concat(properties).Concat(events).Concat(methods)
            .OrderBy(member => member.Order)
            .ThenBy(member => member.Name, StringComparer.Ordinal)
            .ThenBy(member => member.Text, StringComparer.Ordinal)
            .Select(member => member.Text);
    }

    private static string Field(FieldInfo field) => field.IsLiteral
        ? $"{Access(field)}const {Name(field.FieldType)} {field.Name} = {Value(field.GetRawConstantValue(), field.FieldType)};"
        : $"{Access(field)}{(field.IsStatic ? "static " : "")}{(field.IsInitOnly ? "readonly " : "")}{Name(field.FieldType)} {field.Name};";

    private static string Property(PropertyInfo property)
    {
        MethodInfo widest = property.GetAccessors(true).First(IsVisible);
        string required = property.IsDefined(typeof(RequiredMemberAttribute)) ? "required " : "";
        string name = property.GetIndexParameters().Length == 0 ? property.Name : "this" + Parameters(property.GetIndexParameters(), '[', ']');
        StringBuilder accessors = new();
        foreach ((MethodInfo? accessor, string word) in new[] { (property.GetMethod, "get"), (property.SetMethod, SetWord(property)) })
        {
            if (accessor is not null && IsVisible(accessor))
            {
                string access = string.Equals(Access(accessor), Access(widest), StringComparison.Ordinal) ? "" : Access(accessor);
                accessors.Append(access).Append(word).Append("; ");
            }
        }

        return $"{Modifiers(widest)}{required}{Name(property.PropertyType)} {name} {{ {accessors}}}";
    }

    private static string SetWord(PropertyInfo property) =>
        property.SetMethod?.ReturnParameter.GetRequiredCustomModifiers().Contains(typeof(IsExternalInit)) == true ? "init" : "set";

    private static string Method(MethodInfo method)
    {
        string name = IsOperator(method)
            ? "operator " + method.Name[3..]
            : method.Name + TypeParameters(method.IsGenericMethod ? method.GetGenericArguments() : []);
        string constraints = method.IsGenericMethod ? Constraints(method.GetGenericArguments()) : "";
        return $"{Modifiers(method)}{Name(method.ReturnType)} {name}{Parameters(method)}{constraints};";
    }

    private static string Parameters(MethodBase method)
    {
        string text = Parameters(method.GetParameters(), '(', ')');
        return method.IsDefined(typeof(ExtensionAttribute)) ? text.Insert(1, "this ") : text;
    }

    private static string Parameters(ParameterInfo[] parameters, char open, char close) =>
        open + string.Join(", ", parameters.Select(Parameter)) + close;

    private static string Parameter(ParameterInfo parameter)
    {
        string modifier = parameter switch
        {
            { IsOut: true } => "out ",
            { ParameterType.IsByRef: true } when parameter.IsDefined(typeof(IsReadOnlyAttribute)) => "in ",
            { ParameterType.IsByRef: true } => "ref ",
            _ when parameter.IsDefined(typeof(ParamArrayAttribute)) || parameter.IsDefined(typeof(ParamCollectionAttribute)) => "params ",
            _ => "",
        };
        Type type = parameter.ParameterType.IsByRef ? parameter.ParameterType.GetElementType()! : parameter.ParameterType;
        string fallback = parameter.HasDefaultValue ? " = " + Value(parameter.RawDefaultValue, type) : "";
        return $"{modifier}{Name(type)} {parameter.Name}{fallback}";
    }

    private static string Value(object? value, Type type)
    {
        Type target = Nullable.GetUnderlyingType(type) ?? type;
        return value switch
        {
            null => type.IsValueType && Nullable.GetUnderlyingType(type) is null ? "default" : "null",
            string text => $"\"{text}\"",
            char character => $"'{character}'",
            bool flag => flag ? "true" : "false",
            _ when target.IsEnum => string.Join(" | ", $"{Enum.ToObject(target, value)}".Split(", ").Select(name => $"{Name(target)}.{name}")),
            IFormattable number => number.ToString(format: null, System.Globalization.CultureInfo.InvariantCulture),
            _ => value.ToString()!,
        };
    }

    private static IEnumerable<string> Attributes(MemberInfo member) => member.GetCustomAttributesData()
        .Where(attribute => ShownAttributes.Contains(attribute.AttributeType) && !IsCompilerObsolete(attribute))
        .Select(attribute =>
        {
            string name = attribute.AttributeType.Name[..^nameof(Attribute).Length];
            string[] arguments =
            [
                .. attribute.ConstructorArguments.Select(argument => Value(argument.Value, argument.ArgumentType)),
                .. attribute.NamedArguments.Select(argument =>
                    $"{argument.MemberName} = {Value(argument.TypedValue.Value, argument.TypedValue.ArgumentType)}"),
            ];
            return arguments.Length == 0 ? $"[{name}]" : $"[{name}({string.Join(", ", arguments)})]";
        })
        .Order(StringComparer.Ordinal);

    /// <summary>The compiler marks constructors of types with required members obsolete, for compilers that do not know those.</summary>
    private static bool IsCompilerObsolete(CustomAttributeData attribute) =>
        attribute.AttributeType == typeof(ObsoleteAttribute)
        && attribute.ConstructorArguments is [{ Value: string text }, ..]
        && text.StartsWith("Constructors of types with required members", StringComparison.Ordinal);

    private static string Prefix(MemberInfo member) => string.Concat(Attributes(member).Select(attribute => attribute + " "));

    private static string Kind(Type type)
    {
        string record = IsRecord(type) ? "record " : "";
        return type switch
        {
            { IsEnum: true } => "enum",
            { IsInterface: true } => "interface",
            { IsValueType: true } =>
                $"{(type.IsDefined(typeof(IsReadOnlyAttribute)) ? "readonly " : "")}{(type.IsByRefLike ? "ref " : "")}{record}struct",
            { IsAbstract: true, IsSealed: true } => "static class",
            { IsAbstract: true } => $"abstract {record}class",
            { IsSealed: true } => $"sealed {record}class",
            _ => $"{record}class",
        };
    }

    private static bool IsRecord(Type type) => type.IsValueType
        ? type.GetMethod("PrintMembers", Declared)?.IsDefined(typeof(CompilerGeneratedAttribute)) == true
        : type.GetMethod("<Clone>$", Declared) is not null;

    private static string Bases(Type type)
    {
        List<string> bases = [];
        if (type.IsEnum)
        {
            Type underlying = Enum.GetUnderlyingType(type);
            return underlying == typeof(int) ? "" : " : " + Name(underlying);
        }

        if (type.BaseType is { } parent && parent != typeof(object) && parent != typeof(ValueType))
        {
            bases.Add(Name(parent));
        }

        Type[] all = type.GetInterfaces();
        bases.AddRange(all
            .Except(type.BaseType?.GetInterfaces() ?? [])
            .Where(candidate => !all.Any(other => other != candidate && other.GetInterfaces().Contains(candidate)))
            .Where(candidate => IsVisible(candidate) && !(IsRecord(type) && candidate == typeof(IEquatable<>).MakeGenericType(type)))
            .Select(Name)
            .Order(StringComparer.Ordinal));
        return bases.Count == 0 ? "" : " : " + string.Join(", ", bases);
    }

    private static string Constraints(Type type) => Constraints(OwnTypeParameters(type));

    private static string Constraints(Type[] parameters) => string.Concat(parameters.Select(parameter =>
    {
        GenericParameterAttributes special = parameter.GenericParameterAttributes;
        List<string> constraints = [];
        if (special.HasFlag(GenericParameterAttributes.ReferenceTypeConstraint))
        {
            constraints.Add("class");
        }

        bool isStruct = special.HasFlag(GenericParameterAttributes.NotNullableValueTypeConstraint);
        if (isStruct)
        {
            constraints.Add("struct");
        }

        constraints.AddRange(parameter.GetGenericParameterConstraints().Where(type => type != typeof(ValueType)).Select(Name));
        if (special.HasFlag(GenericParameterAttributes.DefaultConstructorConstraint) && !isStruct)
        {
            constraints.Add("new()");
        }

        return constraints.Count == 0 ? "" : $" where {parameter.Name} : {string.Join(", ", constraints)}";
    }));

    private static string Modifiers(MethodInfo method)
    {
        string access = method.DeclaringType!.IsInterface && !method.IsStatic ? "" : Access(method);
        if (method.IsStatic)
        {
            return access + (method.IsAbstract ? "static abstract " : "static ");
        }

        if (method.DeclaringType.IsInterface)
        {
            return method.IsAbstract ? "" : "virtual ";
        }

        bool isOverride = method.GetBaseDefinition().DeclaringType != method.DeclaringType;
        return access + method switch
        {
            { IsAbstract: true } => isOverride ? "abstract override " : "abstract ",
            { IsFinal: true } when isOverride => "sealed override ",
            { IsVirtual: true } when isOverride => "override ",
            { IsVirtual: true, IsFinal: false } => "virtual ",
            _ => "",
        };
    }

    private static string Access(Type type) => type.IsNestedFamily || type.IsNestedFamORAssem ? "protected " : "public ";

    private static string Access(MethodBase member) => member.IsPublic ? "public " : "protected ";

    private static string Access(FieldInfo member) => member.IsPublic ? "public " : "protected ";

    private static bool IsVisible(Type type) =>
        type.IsNested
            ? (type.IsNestedPublic || type.IsNestedFamily || type.IsNestedFamORAssem) && IsVisible(type.DeclaringType!)
            : type.IsPublic;

    private static bool IsVisible(FieldInfo field) => field.IsPublic || InheritableFrom(field.DeclaringType!, field.IsFamily || field.IsFamilyOrAssembly);

    private static bool IsVisible(MethodBase method) =>
        method.IsPublic || InheritableFrom(method.DeclaringType!, method.IsFamily || method.IsFamilyOrAssembly);

    private static bool InheritableFrom(Type type, bool isProtected) => isProtected && !type.IsSealed;

    /// <summary>What the compiler adds to every record says nothing that "record" does not say.</summary>
    private static bool IsGenerated(MemberInfo member) => member.IsDefined(typeof(CompilerGeneratedAttribute))
        || member.Name.Contains('<', StringComparison.Ordinal)
        || (member is PropertyInfo { Name: "EqualityContract" } property && property.GetMethod!.IsDefined(typeof(CompilerGeneratedAttribute)));

    private static bool IsOperator(MethodInfo method) => method.IsSpecialName && method.Name.StartsWith("op_", StringComparison.Ordinal);

    private static string SortName(Type type) => type.FullName!;

    private static string DeclaredName(Type type) => PlainName(type) + TypeParameters(OwnTypeParameters(type));

    private static Type[] OwnTypeParameters(Type type) =>
        type.GetGenericArguments()[(type.DeclaringType?.GetGenericArguments().Length ?? 0)..];

    private static string TypeParameters(Type[] parameters) => parameters.Length == 0
        ? ""
        : $"<{string.Join(", ", parameters.Select(parameter => Variance(parameter) + Name(parameter)))}>";

    private static string Variance(Type parameter) => !parameter.IsGenericParameter
        ? ""
        : (parameter.GenericParameterAttributes & GenericParameterAttributes.VarianceMask) switch
        {
            GenericParameterAttributes.Covariant => "out ",
            GenericParameterAttributes.Contravariant => "in ",
            _ => "",
        };

    private static string PlainName(Type type)
    {
        int arity = type.Name.IndexOf('`', StringComparison.Ordinal);
        return arity < 0 ? type.Name : type.Name[..arity];
    }

    private static string Name(Type type)
    {
        if (Keywords.TryGetValue(type, out string? keyword))
        {
            return keyword;
        }

        if (type.IsGenericParameter)
        {
            return type.Name;
        }

        if (type.IsArray)
        {
            return $"{Name(type.GetElementType()!)}[{new string(',', type.GetArrayRank() - 1)}]";
        }

        if (type.IsPointer)
        {
            return Name(type.GetElementType()!) + "*";
        }

        if (type.IsByRef)
        {
            return "ref " + Name(type.GetElementType()!);
        }

        if (Nullable.GetUnderlyingType(type) is { } underlying)
        {
            return Name(underlying) + "?";
        }

        Type[] arguments = type.GetGenericArguments();
        Type[] outer = type.DeclaringType is null ? [] : arguments[..type.DeclaringType.GetGenericArguments().Length];
        string prefix = type.DeclaringType switch
        {
            null => "",
            { IsGenericTypeDefinition: true } declaring => Name(declaring.MakeGenericType(outer)) + ".",
            { } declaring => Name(declaring) + ".",
        };
        return prefix + PlainName(type) + TypeParameters(arguments[outer.Length..]);
    }
}
