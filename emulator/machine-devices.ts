import type { Storage } from "../disk/storage.ts";
import { Drive, type FailurePolicy } from "./drive.ts";
import type { GuestMemory } from "./guest-memory.ts";
import { IdeDisk } from "./ide.ts";
import type { DriveConfig, Media } from "./machine-config.ts";
import type { DriveShape } from "./machine-state.ts";
import { orderCommandInterrupts } from "./v86-ata.ts";
import { CdBuffer, DiskBuffer, resumePacket } from "./v86-buffer.ts";
import { type AtaInterface, type Cpu, guestMemory, hookState, type StateTree } from "./v86-internals.ts";
import { PciHost } from "./v86-pci.ts";
import { VirtioBlk } from "./virtio-blk.ts";
import { VirtioPci } from "./virtio-pci.ts";

interface Slot { readonly config: DriveConfig; readonly drive: Drive; readonly buffer: DiskBuffer | undefined }

/** All of a machine's drives: made before v86 is, put in when it is ready, saved and reset with it. */
export class MachineDevices {
  readonly #slots: readonly Slot[];
  readonly #ide: IdeDisk[] = [];
  readonly #virtio: VirtioPci[] = [];
  readonly #policy: FailurePolicy;
  #cd: CdBuffer | undefined;
  #cdDrive: AtaInterface | undefined;

  constructor(configs: readonly DriveConfig[], cdrom: Storage | undefined, policy: FailurePolicy) {
    this.#policy = policy;
    const count = { ide: 0, virtio: 0 };
    this.#slots = configs.map((config) => {
      const drive = new Drive(`${config.bus}${count[config.bus]++}`, config.storage, config.readOnly, policy);
      return { config, drive, buffer: config.bus === "ide" ? new DiskBuffer(drive) : undefined };
    });
    this.#cd = cdrom && this.#makeCd(cdrom);
  }

  get drives(): readonly Drive[] {
    return this.#cd ? [...this.disks, this.#cd.drive] : this.disks;
  }

  /** Without the CD. */
  get disks(): readonly Drive[] {
    return this.#slots.map(({ drive }) => drive);
  }

  get media(): Media {
    const [hda, hdb] = this.#ideSlots.map(({ buffer }) => buffer);
    return { hda, hdb, cdrom: this.#cd };
  }

  get shapes(): DriveShape[] {
    return this.#slots.map(({ drive, config: { identity } }) => ({
      name: drive.name, size: drive.size, readOnly: drive.readOnly,
      identity: typeof identity === "function" ? identity() : (identity ?? null),
    }));
  }

  get cdSize(): number | null {
    return this.#cd ? this.#cd.byteLength : null;
  }

  /** v86 reads the first sectors of two IDE disks by itself; the third one's is read here. */
  async prepare(): Promise<void> {
    const third = this.#ideSlots[2]?.buffer;
    if (third) await new Promise<void>((resolve) => third.get_and_cache(0, 0, () => resolve()));
  }

  /** Called when v86 has made its own devices, before the guest runs. */
  attach(cpu: Cpu): void {
    const memory = guestMemory(cpu);
    this.#attachIde(cpu, memory);
    const bus = new PciHost(cpu);
    for (const { drive, config } of this.#slots.filter((slot) => slot.config.bus === "virtio")) {
      const device = new VirtioPci(new VirtioBlk(drive, memory, config.serial), memory);
      device.connect(bus.attach(device.function));
      this.#virtio.push(device);
    }
    this.#cdDrive = cpu.devices.cdrom;
    if (this.#cd) this.#cd.drive_of = this.#cdDrive;
    hookState(cpu, { save: () => this.#save(), restore: (state) => this.#restore(state), reset: () => this.#reset() });
  }

  insertCd(storage: Storage): void {
    this.#cd = this.#makeCd(storage);
    this.#cd.drive_of = this.#cdDrive;
    this.#cdDrive?.set_cdrom(this.#cd);
  }

  ejectCd(): void {
    this.#cd = undefined;
    this.#cdDrive?.eject();
  }

  /** Done when no request is with any storage. */
  async idle(): Promise<void> {
    for (const drive of this.drives) await drive.idle();
  }

  #attachIde(cpu: Cpu, memory: GuestMemory): void {
    const { primary, secondary } = cpu.devices.ide;
    const third = this.#ideSlots[2]?.buffer;
    if (third) {
      secondary.slave.set_disk_buffer(third);
      secondary.slave.drive_connected = true;
    }
    const places = [primary?.master, primary?.slave, secondary.slave];
    for (const [index, { drive }] of this.#ideSlots.entries()) {
      const place = places[index];
      if (place) this.#ide.push(new IdeDisk(drive, memory, place));
    }
    for (const channel of [primary, secondary]) if (channel) orderCommandInterrupts(cpu, channel);
  }

  #makeCd(storage: Storage): CdBuffer {
    return new CdBuffer(new Drive("cdrom", storage, true, this.#policy));
  }

  get #ideSlots(): readonly Slot[] {
    return this.#slots.filter(({ config }) => config.bus === "ide");
  }

  #save(): StateTree {
    return [this.#ide.map((disk) => disk.save()), this.#virtio.map((device) => device.save())];
  }

  #restore(state: StateTree | undefined): void {
    const [ide = [], virtio = []] = (state ?? []) as StateTree[][];
    for (const [index, disk] of this.#ide.entries()) {
      const saved = ide[index];
      if (saved !== undefined) disk.restore(saved);
    }
    for (const [index, device] of this.#virtio.entries()) {
      const saved = virtio[index];
      if (saved !== undefined) device.restore(saved);
    }
    if (this.#cdDrive) resumePacket(this.#cdDrive);
  }

  #reset(): void {
    for (const disk of this.#ide) disk.powerCycle();
    for (const device of this.#virtio) device.reset();
    this.#cdDrive?.cancel_io_operations();
  }
}
