/* To be preloaded: keeps aside what of a folder a power cut would leave.

   Beneath $FORGETFUL_ROOT, each file's contents are copied to $FORGETFUL_KEPT/files/KEY when it is synced, and the names
   in a directory to $FORGETFUL_KEPT/folders/KEY when that is. KEY is the inode and the time of its making, so that a
   file is known again under another name and not taken for one that was deleted. tests/forgetful.py puts it together. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int key_of(int folder, const char *name, char *key, size_t size) {
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(folder, name, flags, STATX_INO | STATX_BTIME | STATX_TYPE, &found)) return -1;
    snprintf(key, size, "%llu-%lld-%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec,
             found.stx_btime.tv_nsec);
    return S_ISDIR(found.stx_mode) ? 1 : 0;
}

static void write_all(int out, const char *data, ssize_t size) {
    while (size > 0) {
        ssize_t done = write(out, data, (size_t)size);
        if (done <= 0) return;
        data += done;
        size -= done;
    }
}

static void keep_file(int fd, int out) {
    static char block[1 << 16];
    off_t where = 0;
    ssize_t size;
    while ((size = pread(fd, block, sizeof block, where)) > 0) {
        write_all(out, block, size);
        where += size;
    }
}

static void keep_folder(const char *path, int out) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    char key[64], line[512];
    if (!folder) return;
    while ((entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        int kind = key_of(dirfd(folder), entry->d_name, key, sizeof key);
        if (kind < 0) continue;
        int size = snprintf(line, sizeof line, "%s %c %s\n", key, kind ? 'd' : 'f', entry->d_name);
        write_all(out, line, size);
    }
    closedir(folder);
}

static void keep(int fd) {
    const char *root = getenv("FORGETFUL_ROOT"), *kept = getenv("FORGETFUL_KEPT");
    char link[64], path[PATH_MAX], key[64], draft[PATH_MAX], final[PATH_MAX];
    if (!root || !kept) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return;
    path[size] = 0;
    size_t length = strlen(root);
    if (strncmp(path, root, length) || (path[length] && path[length] != '/')) return;
    int folder = key_of(fd, "", key, sizeof key);
    if (folder < 0) return;
    snprintf(draft, sizeof draft, "%s/draft-%d", kept, (int)getpid());
    snprintf(final, sizeof final, "%s/%s/%s", kept, folder ? "folders" : "files", key);
    int out = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0) return;
    if (folder) keep_folder(path, out);
    else if (pread(fd, draft, 0, 0) == 0) keep_file(fd, out);
    else {
        /* It is for writing only. (Not for databases: to close one descriptor of a file gives up all locks on it.) */
        int in = open(link, O_RDONLY | O_CLOEXEC);
        if (in >= 0) {
            keep_file(in, out);
            close(in);
        }
    }
    close(out);
    rename(draft, final);
}

static int synced(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    if (!result) {
        int before = errno;
        pthread_mutex_lock(&lock);
        keep(fd);
        pthread_mutex_unlock(&lock);
        errno = before;
    }
    return result;
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
