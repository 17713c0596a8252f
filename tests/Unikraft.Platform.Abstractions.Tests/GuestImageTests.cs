namespace Unikraft.Platform.Abstractions.Tests;

public sealed class GuestImageTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("image-").FullName;

    private string File1 => Path.Combine(_folder, "guest.elf");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task The_content_is_pinned_when_it_is_first_read()
    {
        GuestImage image = File1;
        await File.WriteAllBytesAsync(File1, [1, 2, 3]);

        ReadOnlyMemory<byte> first = await image.ReadAsync();
        await File.WriteAllBytesAsync(File1, [4, 5]);
        ReadOnlyMemory<byte> second = await image.ReadAsync();
        File.Delete(File1);
        ReadOnlyMemory<byte> third = await image.ReadAsync();

        Assert.Equal([1, 2, 3], first.ToArray());
        Assert.True(first.Equals(second));
        Assert.True(first.Equals(third));
    }

    [Fact]
    public async Task A_new_image_of_the_same_file_reads_it_anew()
    {
        await File.WriteAllBytesAsync(File1, [1]);
        Assert.Equal([1], (await GuestImage.FromFile(File1).ReadAsync()).ToArray());
        await File.WriteAllBytesAsync(File1, [2]);
        Assert.Equal([2], (await GuestImage.FromFile(File1).ReadAsync()).ToArray());
    }

    [Fact]
    public async Task Readers_at_the_same_time_see_the_same_bytes()
    {
        await File.WriteAllBytesAsync(File1, new byte[1 << 16]);
        GuestImage image = File1;

        ReadOnlyMemory<byte>[] read = await Task.WhenAll(Enumerable.Range(0, 16).Select(_ => Task.Run(() => image.ReadAsync().AsTask())));

        Assert.All(read, bytes => Assert.True(bytes.Equals(read[0])));
    }

    [Fact]
    public async Task A_missing_file_is_a_typed_error_that_names_it_and_can_be_put_right()
    {
        GuestImage image = File1;

        ImageException error = await Assert.ThrowsAsync<ImageException>(() => image.ReadAsync().AsTask());

        Assert.Equal(ImageError.Unreadable, error.Error);
        Assert.Equal(PlatformErrorCode.InvalidImage, error.Code);
        Assert.Equal(File1, error.Image);
        Assert.StartsWith($"Cannot read the image '{File1}': ", error.Message, StringComparison.Ordinal);
        Assert.IsType<FileNotFoundException>(error.InnerException);

        await File.WriteAllBytesAsync(File1, [7]);
        Assert.Equal([7], (await image.ReadAsync()).ToArray());
    }

    [Fact]
    public async Task A_folder_is_not_an_image()
    {
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadAsync().AsTask());

        Assert.Equal(ImageError.Unreadable, error.Error);
    }

    [Fact]
    public async Task A_cancelled_reading_can_be_repeated()
    {
        await File.WriteAllBytesAsync(File1, [1]);
        GuestImage image = File1;

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => image.ReadAsync(new CancellationToken(canceled: true)).AsTask());

        Assert.Equal([1], (await image.ReadAsync()).ToArray());
    }

    [Fact]
    public async Task Bytes_are_an_image_under_the_given_name()
    {
        GuestImage image = GuestImage.FromBytes("built in memory", new byte[] { 9 });

        Assert.Equal("built in memory", image.Name);
        Assert.Equal("built in memory", image.ToString());
        Assert.Equal([9], (await image.ReadAsync()).ToArray());
    }

    [Fact]
    public void An_image_needs_a_name()
    {
        Assert.Throws<ArgumentException>(() => GuestImage.FromFile(""));
        Assert.Throws<ArgumentNullException>(() => GuestImage.FromFile(null!));
        Assert.Throws<ArgumentException>(() => GuestImage.FromBytes("", default));
    }
}
