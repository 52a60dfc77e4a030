/* What a process does to the files below one directory, in order, for power_loss.py to cut off where it likes.

   Loaded with LD_PRELOAD. DISK_LOG names the log, DISK_LOG_BELOW the directory. A record is: kind, 1 byte; inode,
   offset, size, 8 bytes each; then size bytes. What the kernel says no to is not logged.

   C create     data: name          T truncate   offset: new size
   W write      offset, data        S sync       of a file or of the directory
   R rename     data: old NUL new   U unlink     data: name
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int log_file = -1;
static char below[PATH_MAX];
static size_t below_size;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DISK_LOG"), *where = getenv("DISK_LOG_BELOW");
    if (path == NULL || where == NULL || realpath(where, below) == NULL) return;
    below_size = strlen(below);
    log_file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void record(char kind, uint64_t inode, uint64_t offset, const void *data, uint64_t size) {
    char head[25];
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, size}};
    head[0] = kind;
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &size, 8);
    if (syscall(SYS_writev, log_file, parts, 2) != (long)(sizeof head + size)) abort();
}

static int is_below(const char *path) {
    return strncmp(path, below, below_size) == 0 && (path[below_size] == '/' || path[below_size] == 0);
}

/* The inode of an open file of ours; 0: it is none. */
static uint64_t inode_of(int file) {
    char link[64], path[PATH_MAX];
    struct stat status;
    ssize_t size;
    if (log_file < 0 || fstat(file, &status) != 0) return 0;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return is_below(path) ? status.st_ino : 0;
}

static const char *last_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int opened(int file, const char *path, int flags, int existed) {
    uint64_t inode;
    if (file >= 0 && (inode = inode_of(file)) != 0) {
        if ((flags & O_CREAT) && !existed) record('C', inode, 0, last_of(path), strlen(last_of(path)));
        if ((flags & O_TRUNC) && existed) record('T', inode, 0, "", 0);
    }
    return file;
}

#define OPEN(name)                                                            \
    int name(const char *path, int flags, ...) {                              \
        va_list rest;                                                         \
        va_start(rest, flags);                                                \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;             \
        va_end(rest);                                                         \
        int existed = faccessat(AT_FDCWD, path, F_OK, 0) == 0;                \
        return opened(REAL(name)(path, flags, mode), path, flags, existed);   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                          \
    int name(int at, const char *path, int flags, ...) {                      \
        va_list rest;                                                         \
        va_start(rest, flags);                                                \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;             \
        va_end(rest);                                                         \
        int existed = faccessat(at, path, F_OK, 0) == 0;                      \
        return opened(REAL(name)(at, path, flags, mode), path, flags, existed); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) {
    ssize_t done = REAL(write)(file, data, size);
    uint64_t inode = done > 0 ? inode_of(file) : 0;
    if (inode) record('W', inode, (uint64_t)(lseek(file, 0, SEEK_CUR) - done), data, (uint64_t)done);
    return done;
}

#define PWRITE(name)                                                          \
    ssize_t name(int file, const void *data, size_t size, off_t at) {         \
        ssize_t done = REAL(name)(file, data, size, at);                      \
        uint64_t inode = done > 0 ? inode_of(file) : 0;                       \
        if (inode) record('W', inode, (uint64_t)at, data, (uint64_t)done);    \
        return done;                                                          \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name)                                                        \
    int name(int file, off_t size) {                                          \
        int done = REAL(name)(file, size);                                    \
        uint64_t inode = done == 0 ? inode_of(file) : 0;                      \
        if (inode) record('T', inode, (uint64_t)size, "", 0);                 \
        return done;                                                          \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name)                                                            \
    int name(int file) {                                                      \
        int done = REAL(name)(file);                                          \
        uint64_t inode = done == 0 ? inode_of(file) : 0;                      \
        if (inode) record('S', inode, 0, "", 0);                              \
        return done;                                                          \
    }
SYNC(fsync)
SYNC(fdatasync)

static void renamed(const char *old, const char *new) {
    char both[2 * PATH_MAX], whole[PATH_MAX];
    if (log_file < 0 || realpath(new, whole) == NULL || !is_below(whole)) return;
    size_t size = strlen(last_of(old));
    memcpy(both, last_of(old), size + 1);
    memcpy(both + size + 1, last_of(new), strlen(last_of(new)));
    record('R', 0, 0, both, size + 1 + strlen(last_of(new)));
}

int rename(const char *old, const char *new) {
    int done = REAL(rename)(old, new);
    if (done == 0) renamed(old, new);
    return done;
}

int unlink(const char *path) {
    char whole[PATH_MAX];
    int ours = log_file >= 0 && realpath(path, whole) != NULL && is_below(whole);
    int done = REAL(unlink)(path);
    if (done == 0 && ours) record('U', 0, 0, last_of(path), strlen(last_of(path)));
    return done;
}
