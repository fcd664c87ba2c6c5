/* Stands in for libcuda where there is no GPU: notes what it is asked for. */
#include <stdio.h>
#include <string.h>

static char record[4096];
static unsigned char kernel_args[256];
static int fail_with;

const char* fake_record(void) { return record; }
const unsigned char* fake_args(void) { return kernel_args; }
void fake_fail(int status) { fail_with = status; }

int cuDriverGetVersion(int* version) {
  *version = 13020;
  return 0;
}
int cuGetErrorString(int status, const char** text) {
  *text = status == 700 ? "an illegal memory access was encountered" : "no such error";
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  *module = (void*)0x1000;
  snprintf(record + strlen(record), 400, "load %.3s;", (const char*)image + 1);
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = (void*)0x2000;
  snprintf(record + strlen(record), 400, "function %p %s;", module, name);
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  snprintf(record + strlen(record), 400, "attribute %p %d %d;", function, attribute, value);
  return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void* stream, void** params, void** extra) {
  if (fail_with) return fail_with;
  snprintf(record + strlen(record), 400, "launch %p %u,%u,%u %u,%u,%u %u %p %d;", function, gx, gy,
           gz, bx, by, bz, shared, stream, extra == NULL);
  memcpy(kernel_args, params[0], 40);
  return 0;
}
