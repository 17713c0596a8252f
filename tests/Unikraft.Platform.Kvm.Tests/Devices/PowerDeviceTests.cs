using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class PowerDeviceTests
{
    private static readonly FakeMachine.Initiator Vcpu = new(0);

    private readonly FakeLine _line = new();
    private int _powerOffs;
    private int _resets;

    [Fact]
    public void Sleep_type_5_powers_off()
    {
        PowerDevice power = new(_line, () => _powerOffs++);
        power.Write(Vcpu, 0, [5 << 2]);
        power.Write(Vcpu, 0, [1 << 5]);
        power.Write(Vcpu, 0, [1 << 5 | 3 << 2]);
        power.Write(Vcpu, 1, [1 << 5 | 5 << 2]);
        Assert.Equal(0, _powerOffs);
        power.Write(Vcpu, 0, [1 << 5 | 5 << 2]);
        Assert.Equal(1, _powerOffs);
    }

    [Fact]
    public void A_pressed_button_interrupts_until_the_guest_has_looked()
    {
        PowerDevice power = new(_line, () => _powerOffs++);
        Assert.Equal(0, Read(power, 4));
        power.PressPowerButton();
        Assert.True(_line.IsHigh);
        Assert.Equal(1, Read(power, 4));
        Assert.False(_line.IsHigh);
        Assert.Equal(0, Read(power, 4));
        power.PressPowerButton();
        power.PressPowerButton();
        Assert.Equal(3, _line.RisingEdges);
        Assert.Equal(0, _powerOffs);
    }

    [Fact]
    public void Of_what_is_pending_in_a_snapshot_a_clone_has_all_but_the_button()
    {
        PowerDevice power = new(_line, () => _powerOffs++);
        power.PressPowerButton();
        FakeLine line = new();
        PowerDevice clone = new(line, () => _powerOffs++);
        clone.Restore(power.PendingEvents);
        Assert.False(line.IsHigh);
        Assert.Equal(0, Read(clone, 4));
        Assert.Equal(1, power.PendingEvents);
        clone.Restore(PowerDevice.PowerButtonEvent | PowerDevice.GenerationEvent);
        Assert.True(line.IsHigh);
        Assert.Equal(PowerDevice.GenerationEvent, Read(clone, 4));
        new PowerDevice(_line, () => _powerOffs++).Restore(0);
        Assert.Equal(1, _line.RisingEdges);
    }

    [Fact]
    public async Task Its_events_are_taken_while_somebody_presses_the_button()
    {
        using HeldLine line = new();
        PowerDevice power = new(line, () => _powerOffs++);
        Assert.Equal(1, await line.WhileSetAsync(power.PressPowerButton, () => power.PendingEvents));
    }

    [Fact]
    public void A_keyboard_controller_resets_and_never_makes_a_kernel_wait()
    {
        KeyboardController controller = new(() => _resets++);
        byte[] data = [0xFF];
        controller.Read(Vcpu, 4, data);
        Assert.Equal(0, data[0]);
        controller.Write(Vcpu, 4, [0xAA]);
        controller.Write(Vcpu, 0, [0xFE]);
        Assert.Equal(0, _resets);
        controller.Write(Vcpu, 4, [0xFE]);
        Assert.Equal(1, _resets);
    }

    private static byte Read(PowerDevice power, ulong offset)
    {
        byte[] data = [0xFF];
        power.Read(Vcpu, offset, data);
        return data[0];
    }
}
