// A plugin of QEMU 7 that counts how often each instruction of a program runs: writes lines
// "ADDRESS COUNT" to FILE. qemu-aarch64 -plugin THIS,out=FILE PROGRAM ...
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

// What it needs of qemu-plugin.h, which Debian has no package for.
typedef uint64_t Id;
typedef struct qemu_plugin_tb Tb;
typedef struct qemu_plugin_insn Insn;
void qemu_plugin_register_vcpu_tb_trans_cb(Id id, void (*translated)(Id id, Tb* tb));
void qemu_plugin_register_vcpu_tb_exec_cb(Tb* tb, void (*run)(unsigned cpu, void* data), int flags,
                                          void* data);
void qemu_plugin_register_atexit_cb(Id id, void (*at_exit)(Id id, void* data), void* data);
size_t qemu_plugin_tb_n_insns(const Tb* tb);
Insn* qemu_plugin_tb_get_insn(const Tb* tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const Insn* insn);

int qemu_plugin_version = 1;

// Instructions that QEMU has translated together, and how often they have run.
typedef struct Block {
  struct Block* before;
  uint64_t runs, n, addresses[];
} Block;
static Block* last;

static void run(unsigned cpu, void* data) { ++((Block*)data)->runs; }

static void translated(Id id, Tb* tb) {
  const size_t n = qemu_plugin_tb_n_insns(tb);
  Block* block = calloc(1, sizeof(Block) + n * sizeof(uint64_t));
  block->before = last;
  block->n = n;
  for (size_t i = 0; i < n; ++i) {
    block->addresses[i] = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, i));
  }
  last = block;
  qemu_plugin_register_vcpu_tb_exec_cb(tb, run, 0, block);
}

static void print_counts(Id id, void* path) {
  FILE* out = fopen(path, "w");
  for (const Block* block = last; block != NULL; block = block->before) {
    for (uint64_t i = 0; i < block->n; ++i) {
      fprintf(out, "0x%" PRIx64 " %" PRIu64 "\n", block->addresses[i], block->runs);
    }
  }
  fclose(out);
}

int qemu_plugin_install(Id id, const void* info, int argc, char** argv) {
  if (argc != 1) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, print_counts, argv[0] + sizeof("out"));
  return 0;
}
