"""x"""
import json
def text(results): return ""
def fill(path, results): pass
