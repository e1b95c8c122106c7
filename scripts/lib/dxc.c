// Compiles HLSL files with dxcompiler.dll, which lies beside the program; made for wine (see scripts/check-shaders).
// usage: dxc.exe FILE.hlsl...       the first line of a file is "// entry: NAME"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

// Of dxcapi.h, only what is called; the places in the tables count.
typedef struct { const void *ptr; SIZE_T size; UINT encoding; } Buffer;
typedef struct Blob { struct { void *com[3]; const char *(WINAPI *pointer)(struct Blob *); SIZE_T(WINAPI *size)(struct Blob *); } *v; } Blob;
typedef struct Result { struct { void *com[3]; HRESULT(WINAPI *status)(struct Result *, HRESULT *); void *result; HRESULT(WINAPI *errors)(struct Result *, Blob **); } *v; } Result;
typedef struct Compiler { struct { void *com[3]; HRESULT(WINAPI *compile)(struct Compiler *, const Buffer *, LPCWSTR *, UINT32, void *, const GUID *, Result **); } *v; } Compiler;
static const GUID CLSID_COMPILER = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID IID_COMPILER3 = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID IID_RESULT = {0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};

static int compile(Compiler *compiler, const char *path) {
    static char text[1 << 20], entry[64];
    FILE *file = fopen(path, "rb");
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) fclose(file);
    text[size] = 0;
    if (sscanf(text, "// entry: %63s", entry) != 1) return printf("%s: no entry point named\n", path), 1;
    WCHAR wide[64];
    mbstowcs(wide, entry, 64);
    LPCWSTR arguments[] = {L"-T", L"cs_6_2", L"-E", wide, L"-HV", L"2018", L"-Wno-parentheses-equality"};
    Buffer source = {text, size, CP_UTF8};
    Result *result = NULL;
    HRESULT status = compiler->v->compile(compiler, &source, arguments, 7, NULL, &IID_RESULT, &result);
    if (SUCCEEDED(status)) result->v->status(result, &status);
    if (SUCCEEDED(status)) return 0;
    Blob *messages = NULL;
    if (result) result->v->errors(result, &messages);
    printf("%s: %s\n", path, messages ? messages->v->pointer(messages) : "DXC failed");
    return 1;
}

int main(int count, char **paths) {
    HMODULE library = LoadLibraryA("dxcompiler.dll");
    HRESULT(WINAPI *create)(const GUID *, const GUID *, void **) = library ? (void *)GetProcAddress(library, "DxcCreateInstance") : NULL;
    Compiler *compiler = NULL;
    if (!create || FAILED(create(&CLSID_COMPILER, &IID_COMPILER3, (void **)&compiler))) return printf("dxcompiler.dll can't be used\n"), 2;
    int failed = 0;
    for (int i = 1; i < count; i++) failed |= compile(compiler, paths[i]);
    return failed;
}
